"""What changes of a network's weights and blocks do to its outputs, all of them from one backward pass.

The harm of a change is 1/2 E[(v . dz)^2], where v is drawn with the Fisher information of the softmax at temperature T
as its covariance and dz is the change of the logits, to first order in the change of a layer's output. That is the
Kullback-Leibler divergence to second order, in the Gauss-Newton or Fisher approximation. With G the gradient of v . z
with respect to a layer's weights, of one image, a change D of these weights gives v . dz = <G, D>; changes of several
layers by one option are added before they are squared.

A network with one output has no softmax, whose Fisher information would be zero there: v is drawn from N(0, 1), so that
the harm is half the mean squared change of the output (Gauss-Newton of the squared error). Detectors list what they
found, image by image, which has no such direction: there the harm is half the squared change of what the traced part
gives, relative to its square.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nasprune.calibration.called import routed
from nasprune.calibration.layers import weight_products
from nasprune.common.calls import (
    at_least_single,
    first_tensor,
    in_type_of,
    removed_after,
    spoken_output,
    without_gradients,
)
from nasprune.common.losses import along_outputs
from nasprune.common.outputs import tensors_of
from nasprune.common.phases import Steps, unseen
from nasprune.common.untouched import undisturbed
from nasprune.errors import InputError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph

BYTES = 2**29  # of activations that a backward pass may hold

Layers = Mapping[str, Sequence[nn.Module]]  # by the name of the weight that they hold


@dataclass
class Change:
    """What options do to one layer: keys (choice, option), and what each adds to the weights, (G * F * O, keys)."""

    parts: list[tuple[list[tuple[str, int]], Tensor]] = field(default_factory=list)


def priced(
    model: nn.Module,
    graph: ModelGraph,
    layers: Layers,
    changes: Mapping[str, Change],
    blocks: Sequence[str],
    batches: Sequence[Tensor],
    seed: int,
    temperature: float,
    variance: Tensor | None,
    on_step: Steps = unseen,
) -> dict[tuple[str, int], float]:
    """The mean over images of half the squared change of v . z, by (choice, option).

    Args:
        layers: held by the names of their weights, which `changes` uses too.
        blocks: names of those whose absence is option 0.
        seed: of the draws of v.
        temperature: of the softmax. variance: of outputs that are numbers (outputs,); `None` for classes.
        on_step: told how many batches are done.

    Raises:
        InputError: outputs that are no logits.
    """
    part = submodule(model, graph.scope)
    relu = {block.name: block.relu for block in graph.blocks}
    harms = _Harms()
    bodies = {name: part.get_submodule(name) for name in blocks}
    hooks: list[tuple[nn.Module, Callable[..., Tensor]]] = [
        (layer, hook)
        for param, held in layers.items()
        if changes[param].parts
        for hook in [harms.watch_layer(changes[param])]
        for layer in held
    ]
    hooks += [(body, harms.watch_block(name, relu[name])) for name, body in bodies.items()]
    watched = [*bodies.values(), *(layer for held in layers.values() for layer in held)]
    count = _run_back(model, graph, hooks, watched, harms, batches, seed, temperature, variance, on_step)
    return harms.mean(count)


def curvatures(
    model: nn.Module,
    graph: ModelGraph,
    layers: Layers,
    batches: Sequence[Tensor],
    seed: int,
    temperature: float,
    variance: Tensor | None,
    on_step: Steps = unseen,
) -> dict[str, Tensor]:
    """For each layer the diagonal of the Hessian of what the network gives, (groups, F, O): E[G^2], mean over images.

    The harm of a small change d of one weight is half of it times d^2. Arguments and errors are those of `priced`.
    """
    squares = _Squares()
    hooks = [(layer, squares.watch(param)) for param, held in layers.items() for layer in held]
    count = _run_back(
        model, graph, hooks, [layer for layer, _ in hooks], squares, batches, seed, temperature, variance, on_step
    )
    return {param: total / count for param, total in squares.totals.items()}


class _Watcher(Protocol):
    """What hooks add to. images: in the batch that runs now."""

    images: int

    def next_images(self) -> None:
        """A batch has run back."""


def _run_back(
    model: nn.Module,
    graph: ModelGraph,
    hooks: Sequence[tuple[nn.Module, Callable[..., Tensor]]],
    watched: Sequence[nn.Module],
    watcher: _Watcher,
    batches: Sequence[Tensor],
    seed: int,
    temperature: float,
    variance: Tensor | None,
    on_step: Steps,
) -> int:
    """Runs all images there and, from v . z, back; how many there were. hooks: forward hooks, by module."""
    generator = torch.Generator().manual_seed(seed)
    size = batch_size(graph) if _images_come_first(model, watched, batches[0]) else 1
    handles = [module.register_forward_hook(hook, with_kwargs=True) for module, hook in hooks]
    given: list[Tensor] = []
    part = submodule(model, graph.scope)
    handles.append(part.register_forward_hook(lambda _, args, output: given.extend(tensors_of(output))))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    modules = [module for module, _ in hooks]
    with removed_after(handles), without_gradients(trained), routed(modules), undisturbed(model), torch.enable_grad():
        for number, batch in enumerate(batches, 1):
            for inputs in torch.split(batch, size):
                watcher.images = len(inputs)
                given.clear()
                outputs = model(_tracked(in_type_of(model, inputs)))
                if _is_listed(outputs):
                    scalar = _relative(given, len(inputs), generator)
                else:
                    logits = at_least_single(_logits(outputs))
                    scalar = (logits * _direction(logits.detach(), temperature, variance, generator)).sum()
                if scalar.requires_grad:
                    torch.autograd.backward(scalar)
                watcher.next_images()
            on_step(number, len(batches))
    return sum(len(batch) for batch in batches)


@dataclass
class _Squares:
    """By weight: the products of what is read and the gradient, squared and summed over images."""

    images: int = 0
    totals: dict[str, Tensor] = field(default_factory=dict)
    current: dict[str, Tensor] = field(default_factory=dict)

    def next_images(self) -> None:
        for param, products in self.current.items():
            squares = products.square().sum(0).cpu()
            self.totals[param] = self.totals[param] + squares if param in self.totals else squares
        self.current.clear()

    def watch(self, param: str) -> Callable[..., Tensor]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> Tensor:
            source, result = first_tensor(args, kwargs).detach(), _tracked(result)

            def back(gradient: Tensor) -> None:
                products = weight_products(layer, at_least_single(source), at_least_single(gradient), self.images)
                known = self.current.get(param)
                self.current[param] = products if known is None else known + products

            result.register_hook(back)  # type: ignore[no-untyped-call]
            return result

        return hook


@dataclass
class _Harms:
    """By (choice, option): the change of v . z of each image at hand, and its squares summed over batches before."""

    images: int = 0
    current: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    squares: list[tuple[tuple[tuple[str, int], ...], Tensor]] = field(default_factory=list)

    def add(self, key: tuple[str, int], change: Tensor) -> None:
        self.current[key] = self.current[key] + change if key in self.current else change

    def next_images(self) -> None:
        if self.current:  # nothing is read back before the end, so that a GPU need not wait
            changes = torch.stack(list(self.current.values())).double()
            self.squares.append((tuple(self.current), changes.square().sum(1)))
        self.current.clear()

    def mean(self, count: int) -> dict[tuple[str, int], float]:
        """Half the squared change by (choice, option), over `count` images."""
        totals: dict[tuple[str, int], float] = {}
        for keys, squares in self.squares:
            for key, square in zip(keys, squares.tolist(), strict=True):
                totals[key] = totals.get(key, 0.0) + 0.5 * square
        return {key: total / count for key, total in totals.items()}

    def watch_layer(self, change: Change) -> Callable[..., Tensor]:

        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> Tensor:
            source, result = first_tensor(args, kwargs).detach(), _tracked(result)

            def back(gradient: Tensor) -> None:
                read, slope = at_least_single(source), at_least_single(gradient)
                products = weight_products(layer, read, slope, self.images)
                for keys, added in change.parts:
                    for key, column in zip(keys, (products.flatten(1) @ added.to(products)).T, strict=True):
                        self.add(key, column)

            result.register_hook(back)  # type: ignore[no-untyped-call]
            return result

        return hook

    def watch_block(self, name: str, relu: bool) -> Callable[..., Tensor]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> Tensor:
            without, result = first_tensor(args, kwargs).detach(), _tracked(result)
            change = (without.relu() if relu else without) - result.detach()

            def back(gradient: Tensor) -> None:
                self.add((name, 0), (at_least_single(gradient) * change).reshape(self.images, -1).sum(1))

            result.register_hook(back)  # type: ignore[no-untyped-call]
            return result

        return hook


def _images_come_first(model: nn.Module, modules: Sequence[nn.Module], inputs: Tensor) -> bool:
    """Whether the first image's part of what each module reads is its first part.

    Not so where a module reads the same for all images, or another axis comes first: then the shares of the images
    cannot be told apart, and each is priced on its own.
    """
    seen: list[Tensor] = []

    def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(first_tensor(args, kwargs))

    handles = [module.register_forward_pre_hook(look, with_kwargs=True) for module in modules]
    with removed_after(handles), routed(modules), undisturbed(model):
        model(in_type_of(model, inputs[:1]))
        alone = seen.copy()
        seen.clear()
        model(in_type_of(model, inputs[:2]))
    return len(alone) == len(seen) and all(map(partial(_leads, len(inputs[:2])), alone, seen))


def _leads(images: int, alone: Tensor, both: Tensor) -> bool:
    """Whether what one image gives is the first part of what several give, up to rounding."""
    if len(both) != images * len(alone):
        return False
    alone, first = at_least_single(alone), at_least_single(both[: len(alone)])
    return alone.shape == first.shape and float((alone - first).norm()) <= 0.05 * float(alone.norm())


def batch_size(graph: ModelGraph) -> int:
    """How many images' activations fit into BYTES, from 1 to 64."""
    numel = sum(prod(op.shape) for op in graph.ops if op.shape)
    return max(1, min(64, BYTES // (4 * max(numel, 1))))


def _is_listed(outputs: Any) -> bool:
    """Whether a model gave one dict for each image, as detectors do."""
    return isinstance(outputs, (list, tuple)) and bool(outputs) and all(isinstance(one, dict) for one in outputs)


def _relative(given: Sequence[Tensor], images: int, generator: torch.Generator) -> Tensor:
    """v . z over all tensors that the traced part gave, where v is drawn from a normal distribution of 1 / |z|^2."""
    parts = []
    for value in given:
        if value.is_floating_point() and value.numel():
            noise = torch.randn(value.shape, generator=generator, device="cpu").to(value)
            parts.append((value * noise).sum() * (images**0.5 / value.detach().norm().clamp(min=1e-12)))
    if not parts:
        raise InputError("damages need tensors that the traced part of the model gives; use another controller")
    return torch.stack(parts).sum()


def _direction(logits: Tensor, temperature: float, variance: Tensor | None, generator: torch.Generator) -> Tensor:
    """Drawn with the Fisher information of the softmax at `temperature` along axis 1 as its covariance.

    Numbers have no softmax: theirs is one over their variance; that of a single output counts as 1 where none is given.
    """
    noise = torch.randn(logits.shape, generator=generator, device="cpu").to(logits)
    if variance is not None:
        return noise / along_outputs(variance, logits).sqrt()
    if logits.shape[1] == 1:
        return noise
    p = (logits / temperature).softmax(1)
    return p.sqrt() * noise - p * (p.sqrt() * noise).sum(1, keepdim=True)


def _logits(value: Any) -> Tensor:
    found = spoken_output(value)
    if found is None:
        raise InputError("damages need a model that returns a tensor (n, classes, ...); use another controller")
    return found


def _tracked(value: Tensor) -> Tensor:
    """The value, as a start of the autograd graph where it has none; integers stay.

    A copy, since the code behind may write into it, which a leaf does not allow.
    """
    if value.requires_grad or not value.is_floating_point():
        return value
    with torch.enable_grad():
        return value.detach().requires_grad_().clone()
