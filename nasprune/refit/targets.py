"""What the dense layers give on calibration inputs, at sampled positions: what refitted layers aim at."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nasprune.calibration.called import routed
from nasprune.calibration.layers import output_rows, picked_rows, row_count
from nasprune.common.allocation import memory_reused
from nasprune.common.calls import first_tensor, in_type_of, removed_after
from nasprune.common.inputs import Inputs
from nasprune.common.phases import Steps, unseen
from nasprune.common.shelf import Shelf
from nasprune.common.untouched import undisturbed
from nasprune.cut.plan import PrunePlan
from nasprune.errors import InputError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph
from nasprune.refit.sites import Site, sites

ROWS = 40_000


@dataclass(frozen=True)
class Rows:
    """Positions of one batch that were sampled, rising, (n,); what the layer gave there (n, groups, outputs).

    shortcut: what was added to it (n, channels), for a layer that ends the branch of a block.
    """

    rows: Tensor
    output: Tensor
    shortcut: Tensor | None


class Calls:
    """Inputs of all batches, in order, which lie on a shelf. items: in a batch."""

    items = 0

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._without: list[Inputs] = []  # of each batch all but the values of its tensors

    def put(self, inputs: Inputs) -> None:
        self.items = len(first_tensor(inputs.args, inputs.kwargs))
        self._shelf.put((self, len(self)), inputs.clone().tensors)
        self._without.append(inputs.map(lambda tensor: tensor.new_empty(0)))

    def __len__(self) -> int:
        return len(self._without)

    def __getitem__(self, batch: int) -> Inputs:
        tensors = iter(self._shelf.read((self, range(len(self))[batch])))
        return self._without[batch].map(lambda _: next(tensors))

    def __iter__(self) -> Iterator[Inputs]:
        return (self[batch] for batch in range(len(self)))


@dataclass(frozen=True)
class Targets:
    """Of every layer that may be refitted, in every batch.

    calls: what the traced part of the network was run with. counts: samples of each batch, and of each run of the layer
    on it, by layer.
    """

    calls: Calls
    counts: Mapping[str, Sequence[int]]
    shelf: Shelf

    def ran(self, site: Site) -> bool:
        """Whether the layer ran on every batch as often as when it was traced."""
        return len(self.counts.get(site.path, ())) == len(self.calls) * len(site.nodes)

    def read(self, path: str, batch: int, use: int = 0) -> Rows:
        """use: which run of the layer on the batch."""
        found = self.shelf.read((path, batch, use))
        return Rows(found[0], found[1], found[2] if len(found) > 2 else None)


@memory_reused()
def targets_of(
    dense: nn.Module,
    graph: ModelGraph,
    batches: Sequence[Tensor],
    shelf: Shelf,
    rows: int = ROWS,
    on_step: Steps = unseen,
    paths: Collection[str] | None = None,
) -> Targets:
    """Runs the dense network once, which is left as found.

    Args:
        batches: calibration inputs, (n, ...) each with the same n.
        shelf: where the targets lie.
        rows: how many positions of a layer are sampled at most, over all batches.
        on_step: told how many batches are done.
        paths: of the layers that are watched; by default all that a plan may refit.

    Raises:
        InputError: a layer that runs once when traced runs twice here.
    """
    part = submodule(dense, graph.scope)
    all_sites = sites(part, graph, PrunePlan(graph.signature))
    found = [site for site in all_sites if paths is None or site.path in paths]
    layers = [site.layer(part, graph.program) for site in found]
    watch = _Watch(shelf, rows, len(batches))
    with undisturbed(dense), removed_after(_hooks(part, found, layers, watch)), routed(layers):
        for number, batch in enumerate(batches, 1):
            dense(in_type_of(dense, batch))
            watch.next_batch()
            on_step(number, len(batches))
    return Targets(watch.calls, watch.counts, shelf)


def _hooks(part: nn.Module, found: Sequence[Site], layers: Sequence[nn.Module], watch: _Watch) -> list[Any]:
    blocks = [site.block for site in found if site.block]
    return [
        part.register_forward_pre_hook(watch.call, with_kwargs=True),
        *(
            part.get_submodule(name).register_forward_pre_hook(watch.shortcut(name), with_kwargs=True)
            for name in blocks
        ),
        *(
            layer.register_forward_hook(watch.layer(site), with_kwargs=True)
            for layer, site in zip(layers, found, strict=True)
        ),
    ]


class _Watch:
    """Hooks that put on the shelf what passes."""

    def __init__(self, shelf: Shelf, rows: int, batches: int) -> None:
        self.calls = Calls(shelf)
        self.counts: dict[str, list[int]] = {}
        self._shelf, self._rows, self._batches = shelf, rows, batches
        self._batch = 0
        self._beside: dict[str, Tensor] = {}
        self._drawn: dict[tuple[str, int], Tensor] = {}
        self._ran: Counter[str] = Counter()

    def next_batch(self) -> None:
        self._batch += 1
        self._beside.clear()
        self._ran.clear()

    def call(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(self.calls) > self._batch:
            raise InputError("the traced part runs more than once in the network; do not refit it: reconstruct='none'")
        self.calls.put(Inputs(args, kwargs))

    def shortcut(self, block: str) -> Callable[..., None]:
        return lambda _, args, kwargs: self._beside.__setitem__(block, first_tensor(args, kwargs))

    def layer(self, site: Site) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> None:
            use, uses = self._ran[site.path], len(site.nodes)
            self._ran[site.path] += 1
            if use >= uses:
                if not site.shared:
                    raise InputError(
                        f"the network runs {site.path!r} once when traced, and twice on calibration inputs"
                    )
                self.counts[site.path].append(0)  # more often than was traced: `ran` says so
                return
            rows = self._sampled((site.path, use), row_count(layer, first_tensor(args, kwargs)), self._rows // uses)
            kept = [rows, output_rows(layer, result, rows)]
            beside = self._beside.pop(site.block, None) if site.block else None
            if beside is not None and beside.shape == result.shape:  # none is repeated along an axis
                kept.append(channel_rows(beside, rows, layer))
            self.counts.setdefault(site.path, []).append(len(rows))
            self._shelf.put((site.path, self._batch, use), kept)

        return hook

    def _sampled(self, run: tuple[str, int], count: int, most: int) -> Tensor:
        """Rows of this batch out of `most` drawn over all, by the layer's name; a batch has `count`."""
        total = count * self._batches
        if total <= most:
            return torch.arange(count, device="cpu")
        if run not in self._drawn:
            generator = torch.Generator().manual_seed(zlib.crc32(run[0].encode()) + run[1])
            self._drawn[run] = torch.randint(total, (most,), generator=generator, device="cpu").sort().values
        drawn = self._drawn[run]
        first, last = torch.searchsorted(
            drawn, torch.tensor([self._batch * count, (self._batch + 1) * count], device="cpu")
        ).tolist()
        return drawn[first:last] - self._batch * count


def channel_rows(value: Tensor, rows: Tensor, layer: nn.Module) -> Tensor:
    """What is added to the layer's output, as sampled rows (rows, channels); its channels lie where the layer's do."""
    axis = value.ndim - 1 - len(layer.kernel_size) if isinstance(layer, _ConvNd) else value.ndim - 1
    return picked_rows(value.movedim(axis, -1), rows)
