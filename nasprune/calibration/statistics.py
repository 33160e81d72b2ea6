"""What calibration images say about a group: what its consumers read, and how the loss depends on it.

The model runs in eval mode and is left as found: hooks are removed, nothing is added to `.grad`, random generators are
not touched. Passes serve as many groups at once as fit a fixed amount of memory, in the order of the graph's free
groups, which is the order in which they are asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from nasprune.base import ConsumerGram
from nasprune.calibration.called import routed
from nasprune.calibration.consumers import Consumer, consumers
from nasprune.calibration.grams import GramSums, gram_bytes
from nasprune.calibration.layers import patches, row_count
from nasprune.common.allocation import memory_reused
from nasprune.common.calls import removed_after
from nasprune.common.losses import cross_entropy
from nasprune.common.untouched import undisturbed
from nasprune.data.batches import batches
from nasprune.data.splits import size_of
from nasprune.errors import InputError
from nasprune.graph.capture import submodule
from nasprune.graph.model import CoupledGroup, ModelGraph

IMAGES = 256
FISHER_IMAGES = 64
ROWS = 8192  # positions per consumer, over all images
MEMORY = 640 * 2**20  # bytes of statistics held at a time
LARGEST = 2**31  # bytes of one group's Gram matrices, above which none are summed
BATCH_VALUES = 2**21  # numbers in the images of one batch; a quarter of it where gradients are taken

log = logging.getLogger(__name__)


class Statistics:
    """Statistics of one model over at most 256 images of `data`, chosen by the seed."""

    def __init__(self, model: nn.Module, graph: ModelGraph, data: Dataset[tuple[Tensor, int]], *, seed: int) -> None:
        self._model, self._graph, self._data, self._seed = model, graph, data, seed
        self._part = submodule(model, graph.scope)
        count = size_of(data)
        self._images = Random(seed).sample(range(count), min(count, IMAGES))
        self._held: dict[str, dict[str, list[Any]]] = {}
        self._fisher: dict[str, Tensor] | None = None
        self._share = 1.0  # of the images that the batch at hand has

    def activations(self, group: CoupledGroup) -> list[Tensor]:
        """For each consumer (n, width); positions that one unit has several of on the axis count as more samples."""
        found: list[Tensor] = self._fetch("activations", group, self._collect_activations, _activation_bytes)
        return found

    def gradients(self, group: CoupledGroup) -> list[Tensor]:
        """For each consumer (images, width): derivative of each image's cross-entropy by a factor on the unit."""
        found: list[Tensor] = self._fetch("gradients", group, self._collect_gradients, lambda _: 0)
        return found

    def grams(self, group: CoupledGroup) -> list[ConsumerGram]:
        """None where they would take too much memory, as for widths of many layers that shrink together."""
        size = sum(map(gram_bytes, self._consumers[group.name]))
        if size > LARGEST:
            log.warning(
                "group %r has %s units in all, and sums of what the layers behind read of them would take %.0f GiB: it "
                "is ranked without them",
                group.name,
                f"{group.width:,}",
                size / 2**30,
            )
            return []
        found: list[ConsumerGram] = self._fetch("grams", group, self._collect_grams, gram_bytes)
        return found

    def fisher(self) -> Mapping[str, Tensor]:
        """Squared derivatives of the cross-entropy by every weight that makes channels, mean over 64 images."""
        if self._fisher is None:
            self._fisher = self._collect_fisher()
        return self._fisher

    def _fetch(
        self,
        kind: str,
        group: CoupledGroup,
        collect: Callable[[Sequence[Consumer]], list[list[Any]]],
        size: Callable[[Consumer], int],
    ) -> Any:
        """What was collected for the group's consumers; a miss collects for it and for those after it that fit."""
        held = self._held.setdefault(kind, {})
        if group.name not in held:
            held.clear()
            free = [other.name for other in self._graph.free_groups]
            names = free[free.index(group.name) :] if group.name in free else [group.name]
            chosen: dict[str, list[Consumer]] = {}
            total = 0
            for name in names:
                own = self._consumers[name]
                total += sum(map(size, own))
                if chosen and total > MEMORY:
                    break
                chosen[name] = own
            with memory_reused():
                results = iter(collect([one for own in chosen.values() for one in own]))
            for name, own in chosen.items():
                held[name] = [item for _ in own for item in next(results)]
        return held[group.name]

    @cached_property
    def _consumers(self) -> dict[str, list[Consumer]]:
        return {group.name: consumers(self._part, self._graph, group) for group in self._graph.groups}

    def _collect_activations(self, chosen: Sequence[Consumer]) -> list[list[Tensor]]:
        found: dict[int, list[Tensor]] = {id(one): [] for one in chosen}

        def look(x: Tensor, one: Consumer) -> None:
            flat = _channels_last(x, one.modules[0])
            rows = self._drawn(one, len(found[id(one)]), flat.shape[0], one.channels.shape[1])
            read = flat[rows.to(x.device)].to("cpu", torch.float32)
            found[id(one)].append(one.by_unit(read).movedim(2, 1).reshape(-1, len(one.channels)))

        with self._hooked(chosen, look):
            for images, _ in self._batches(BATCH_VALUES):
                self._model(images)
        return [[torch.cat(found[id(one)])] if found[id(one)] else [] for one in chosen]

    def _collect_grams(self, chosen: Sequence[Consumer]) -> list[list[ConsumerGram]]:
        found = {id(one): GramSums(one) for one in chosen}

        def look(x: Tensor, one: Consumer) -> None:
            grams = found[id(one)]
            rows = self._drawn(one, grams.batches, row_count(one.modules[0], x))
            grams.add(patches(one.modules[0], x, rows.to(x.device)).flatten(1).to("cpu", torch.float32))

        with self._hooked(chosen, look):
            for images, _ in self._batches(BATCH_VALUES):
                self._model(images)
        return [found[id(one)].finished() for one in chosen]

    def _collect_gradients(self, chosen: Sequence[Consumer]) -> list[list[Tensor]]:
        factors: dict[int, list[Tensor]] = {id(one): [] for one in chosen}
        found: dict[int, list[Tensor]] = {id(one): [] for one in chosen}

        def scale(x: Tensor, one: Consumer) -> Tensor:
            axis = _channel_axis(x, one.modules[0])
            factor = x.new_ones(x.shape[0] if axis else 1, x.shape[axis]).requires_grad_()
            factors[id(one)].append(factor)
            shape = [1] * x.ndim
            shape[0], shape[axis] = factor.shape[0] if axis else factor.shape[1], factor.shape[1]
            return x * factor.reshape(shape)

        with self._hooked(chosen, scale), torch.enable_grad():
            for images, labels in self._batches(BATCH_VALUES // 4):
                loss = _loss(self._model(images), labels)
                flat = [factor for own in factors.values() for factor in own]
                slopes = iter(torch.autograd.grad(loss, flat, allow_unused=True) if flat else ())
                for key, own in factors.items():
                    parts = [_per_image(factor, next(slopes), len(images)) for factor in own]
                    if parts:
                        found[key].append(torch.stack(parts).sum(dim=0).to("cpu", torch.float32))
                    own.clear()
        return [[one.by_unit(torch.cat(found[id(one)])).sum(dim=2)] if found[id(one)] else [] for one in chosen]

    @memory_reused()
    def _collect_fisher(self) -> dict[str, Tensor]:
        prefix = f"{self._graph.scope}." if self._graph.scope is not None else ""
        wanted = {part.param for group in self._graph.free_groups for part in group.slices if part.role == "out"}
        named = dict(self._model.named_parameters(remove_duplicate=False))
        names = sorted(name for name in wanted if prefix + name in named)
        weights = {prefix + name: named[prefix + name].detach().requires_grad_() for name in names}
        squares = {name: torch.zeros_like(weights[prefix + name], dtype=torch.float32) for name in names}
        images = self._images[:FISHER_IMAGES]
        with undisturbed(self._model), torch.enable_grad():
            for image, label in self._batches(0, images):
                output = torch.func.functional_call(self._model, weights, (image,))
                slopes = torch.autograd.grad(_loss(output, label), list(weights.values()), allow_unused=True)
                for name, slope in zip(names, slopes, strict=True):
                    if slope is not None:
                        squares[name] += slope.float().square()
        return {name: value / max(len(images), 1) for name, value in squares.items()}

    def _batches(self, values: int, images: Sequence[int] | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels where the model is, `values` numbers at a time but at least one image."""
        home = next(
            (value for value in self._model.parameters() if value.is_floating_point()), torch.zeros((), device="cpu")
        )
        order = self._images if images is None else images
        first, _ = next(batches(self._data, 1, order[:1]))
        for inputs, labels in batches(self._data, max(1, min(64, values // first.numel())), order):
            self._share = len(inputs) / len(order)
            kind = home.dtype if inputs.is_floating_point() else inputs.dtype
            yield inputs.to(home.device, kind), labels.to(home.device) if isinstance(labels, Tensor) else labels

    def _drawn(self, one: Consumer, number: int, count: int, each: int = 1) -> Tensor:
        """Which of `count` rows to take from one batch, rising; `each` samples come from a row."""
        size = max(1, round(ROWS / each * self._share))
        if size >= count:
            return torch.arange(count, device="cpu")
        seed = Random(f"{self._seed}/{one.param}/{number}").getrandbits(63)
        return torch.randperm(count, generator=torch.Generator().manual_seed(seed), device="cpu")[:size].sort().values

    @contextmanager
    def _hooked(self, chosen: Sequence[Consumer], look: Callable[[Tensor, Consumer], Tensor | None]) -> Iterator[None]:
        """Shows `look` the input of every layer that a consumer stands for; what it returns is read in its place."""

        def before(one: Consumer) -> Callable[..., Any]:
            def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                other = look(args[0] if args else kwargs["input"], one)
                if other is None:
                    return None
                return ((other, *args[1:]), kwargs) if args else (args, {**kwargs, "input": other})

            return hook

        handles = [
            module.register_forward_pre_hook(before(one), with_kwargs=True) for one in chosen for module in one.modules
        ]
        modules = [module for one in chosen for module in one.modules]
        with removed_after(handles), routed(modules), undisturbed(self._model):
            yield


def _activation_bytes(one: Consumer) -> int:
    return 4 * ROWS * len(one.channels)


def _channel_axis(x: Tensor, layer: nn.Module) -> int:
    return x.ndim - 1 if isinstance(layer, nn.Linear) else x.ndim - 1 - len(layer.kernel_size)  # type: ignore[arg-type]


def _channels_last(x: Tensor, layer: nn.Module) -> Tensor:
    """The layer's input as (positions, channels)."""
    axis = _channel_axis(x, layer)
    return x.movedim(axis, -1).reshape(-1, x.shape[axis])


def _per_image(factor: Tensor, slope: Tensor | None, images: int) -> Tensor:
    """Derivatives (images, channels) from those of a factor (n, channels), where n is a multiple of the images.

    Where it is none, as for a layer that reads what is the same for all images, they are shared equally.
    """
    slope = torch.zeros_like(factor) if slope is None else slope
    if slope.shape[0] % images:
        return (slope.sum(dim=0, keepdim=True) / images).expand(images, -1)
    return slope.reshape(images, -1, slope.shape[1]).sum(dim=1)


def _loss(output: object, labels: Tensor) -> Tensor:
    """Cross-entropy, summed over images."""
    if not isinstance(output, Tensor):
        raise InputError(
            "the gradient of the cross-entropy needs one output (n, classes), got a "
            f"{type(output).__name__}; choose a criterion without gradients"
        )
    return cross_entropy(output.float(), labels, "sum")
