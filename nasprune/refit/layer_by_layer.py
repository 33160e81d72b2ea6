"""A refit on many batches: every batch runs up to a layer, the layer is refitted, and every batch runs on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from nasprune.common.allocation import give_back
from nasprune.common.phases import Steps
from nasprune.common.shelf import Shelf
from nasprune.common.untouched import undisturbed
from nasprune.errors import TraceError
from nasprune.graph.capture import capture
from nasprune.graph.program import Program, arguments, operator
from nasprune.graph.together import gathered
from nasprune.refit.fit import Fit, Reading
from nasprune.refit.sites import Site
from nasprune.refit.stream import Stream
from nasprune.refit.targets import Calls, Targets

SPARE = 2**28  # bytes that are free between two layers and need not go back
CLOSE = 1e-2  # relative difference of outputs between a network and its program


@dataclass(frozen=True)
class Side:
    """One of the two networks, its program and its batches."""

    part: nn.Module
    program: Program
    stream: Stream

    @classmethod
    def of(cls, part: nn.Module, calls: Calls, shelf: Shelf, chosen: Sequence[Site]) -> Side:
        """Captures the part on its first call; the runs of each of the `chosen` layers follow each other.

        Raises:
            TraceError: it cannot be captured on that batch, or its program gives something else than it does, or runs
                a layer more or less often.
        """
        with undisturbed(part):
            program = capture(part, calls[0])
            wanted = [leaf for leaf in tree_leaves(calls[0].clone().call(part)) if isinstance(leaf, Tensor)]
        runs = {site.path: program.multiplying.get(site.weight, ()) for site in chosen}
        order = gathered(program, {nodes for nodes in runs.values() if len(nodes) > 1})
        for site in chosen:
            nodes = runs[site.path]
            if len(nodes) != len(site.nodes) or not (len(nodes) == 1 or nodes in order.together):
                raise TraceError(f"the layer {site.path!r} does not run as in the dense network")
        stream = Stream(part, program, calls, shelf, order.nodes)
        given = [leaf for leaf in stream.outputs(calls[0]) if isinstance(leaf, Tensor)]
        if len(wanted) != len(given) or not all(map(_close, wanted, given)):
            raise TraceError("the captured program gives something else than the network")
        return cls(part, program, stream)

    def runs(self, site: Site) -> tuple[Node, ...]:
        """The operations that multiply with the weight of the layer."""
        return self.program.multiplying[site.weight]

    def upto(self, site: Site, others: Sequence[Node] = ()) -> Iterator[list[Any]]:
        """Runs every batch until the layer is next; of each what its runs read, and the values of `others`."""
        nodes = self.runs(site)
        return self.stream.upto(nodes[0], [*(arguments(node)["input"] for node in nodes), *others])

    def norm(self, path: str) -> Node:
        """The operation of the batch norm."""
        for node in self.program.live:
            if operator(node) == "batch_norm" and self.program.owner(node).partition("@")[0] == path:
                return node
        raise TraceError(f"the batch norm {path!r} does not run")


def refit_by_layers(
    parts: tuple[nn.Module, nn.Module],
    chosen: Sequence[Site],
    norms: Mapping[str, _BatchNorm],
    targets: Targets,
    fit: Fit,
    method: str,
    memory: int,
    on_step: Steps,
) -> None:
    """Refits the chosen layers of the second part in place, and estimates the norms, in the order in which they run.

    Args:
        parts: the dense and the cut network.
        memory: bytes of activations that are held in memory. on_step: told how many layers are done.

    Raises:
        TraceError: a part cannot be captured on the batches; nothing has changed then.
    """
    with Shelf(memory) as shelf:
        small = Side.of(parts[1], targets.calls, shelf, chosen)
        dense = Side.of(parts[0], targets.calls, shelf, chosen) if method == "obs" else None
        order = small.stream.place
        stops: list[tuple[Node, Site | _BatchNorm]] = [
            *((small.runs(site)[0], site) for site in chosen),
            *((small.norm(path), norm) for path, norm in norms.items()),
        ]
        for number, (node, what) in enumerate(sorted(stops, key=lambda stop: order[stop[0]]), 1):
            if isinstance(what, _BatchNorm):
                _estimate(what, (x for (x,) in small.stream.upto(node, [arguments(node)["input"]])))
            else:
                readings = _readings(what, small, dense, targets)
                fit.refit(what, what.layer(small.part, small.program), targets.counts[what.path], readings)
            give_back(SPARE)
            on_step(number, len(stops))


def _readings(site: Site, small: Side, dense: Side | None, targets: Targets) -> Iterator[Reading]:
    runs = len(site.nodes)
    added = _added(small.runs(site)[0], site) if site.block else None
    read = small.upto(site, [added] if added is not None else [])
    from_dense = dense.upto(site) if dense is not None else repeat([None] * runs, len(targets.calls))
    for number, (values, whole) in enumerate(zip(read, from_dense, strict=True)):
        beside = values[runs] if added is not None else None
        for use, (x, dense_x) in enumerate(zip(values[:runs], whole, strict=True)):
            yield x if dense_x is None else _kept(dense_x, site), beside, targets.read(site.path, number, use)


def _added(node: Node, site: Site) -> Node | None:
    """What is added to the end of a branch: to the layer's result, or to that of the norm behind it."""
    end = next(iter(node.users)) if site.norm else node
    others = [source for user in end.users for source in user.all_input_nodes if source is not end]
    return others[0] if len(others) == 1 and len(end.users) == 1 else None


def _kept(x: Tensor, site: Site) -> Tensor:
    """The dense layer's input without the channels that are gone."""
    if site.read is None or site.reads_all:
        return x
    return x[..., site.read] if operator(site.nodes[0]) == "linear" else x[:, site.read]


def _estimate(norm: _BatchNorm, read: Iterable[Tensor]) -> None:
    """Running statistics from what the norm reads of all batches."""
    count, total, squares = 0, torch.zeros((), device="cpu"), torch.zeros((), device="cpu")
    shift: Tensor | None = None
    for x in read:
        rows = x.movedim(1, -1).reshape(-1, x.shape[1]).double()
        shift = rows.mean(0) if shift is None else shift
        count, total, squares = (
            count + len(rows),
            total + (rows - shift).sum(0),
            squares + (rows - shift).square().sum(0),
        )
    if shift is None or norm.running_mean is None or norm.running_var is None or count < 2:
        return
    off = total / count
    norm.running_mean.copy_(shift + off)
    norm.running_var.copy_((squares / count - off.square()) * count / (count - 1))


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    a, b = a.double(), b.double()
    return bool((a - b).norm() <= CLOSE * a.norm() + 1e-6)
