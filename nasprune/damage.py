"""How much each option of each choice hurts, from one backward pass: the input of the `sensitivity` controller.

The harm of a change is the Kullback-Leibler divergence between the dense and the changed outputs at temperature T, to
second order: 1/2 E[(v . dz)^2], where v is drawn with the Fisher information of the softmax as its covariance and dz is
the change of the logits, to first order in the change of a layer's output (the Gauss-Newton or Fisher approximation of
Theis et al. 2018, arXiv:1801.05787, and Molchanov et al. 2019, arXiv:1906.10771, for whole options and not for single
filters). With G the gradient of v . z with respect to a layer's weights, of one image, a change D of these weights
gives v . dz = <G, D>. So one backward pass prices all options of all groups at once; changes of several layers by one
option are added before they are squared.

What an option changes: the weights of the layers that read a group lose the group's dropped units, and, where the
network will be refitted, their weights on the units that stay take over what they can (least squares on the layer's
dense inputs). A dropped block is priced at its output. Options between the measured ones are interpolated.

The refit of the layers behind also makes good what is lost before them, which one backward pass cannot see. Measured
one by one (`benchmarks/damage.py`), what is left of the estimate falls from the last layer to the first, about
exponentially. So, where the network will be refitted, harms are multiplied by exp(-MENDED * s), with s the share of the
network's layers that run after the first one that reads the group, or after the block's first.

A network with one output has no softmax, whose Fisher information would be zero there: v is drawn from N(0, 1), so that
the harm is half the mean squared change of the output (Gauss-Newton of the squared error).

Only modules that run torch's own code for convolutions and linear layers are seen. A group that none of them reads, as
where a convolution is called as a function, has no known harm; narrowing it is priced above everything else together,
so that it is done last. So is dropping a block that the first output of the network does not depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import exp, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from nasprune.consumers import Consumer, consumers
from nasprune.errors import InputError
from nasprune.graph.capture import submodule, undisturbed
from nasprune.graph.model import CoupledGroup, ModelGraph
from nasprune.layers import RowSums, is_layer, output_rows, patches, row_count, weight_matrix
from nasprune.selection import best_units
from nasprune.space import SearchSpace

TEMPERATURE = 4.0
ROWS = 20_000
LARGEST = 6_144  # features up to which a layer's refit is taken into account
MEASURED = 8  # options of a group that are measured; the others are interpolated
MENDED = 1.4
BYTES = 2**30  # of activations that a backward pass may hold

Damages = Mapping[str, Mapping[int, float]]
Layers = Mapping[str, Sequence[nn.Module]]  # by the name of the weight that they hold


@dataclass
class _Change:
    """What options do to one layer: keys (choice, option), one column of `matrix` (groups * F * O, options) each."""

    keys: list[tuple[str, int]] = field(default_factory=list)
    columns: list[Tensor] = field(default_factory=list)


def damages(
    model: nn.Module,
    graph: ModelGraph,
    space: SearchSpace,
    scores: Mapping[str, Tensor],
    batches: Sequence[Tensor],
    *,
    refit: bool,
    seed: int = 0,
    temperature: float = TEMPERATURE,
) -> Damages:
    """For every choice of the space: option -> harm, 0 for keeping everything.

    Args:
        model: the dense network; left as found.
        scores: criterion scores by group; an option keeps the best units.
        batches: calibration inputs (n, ...), at least one batch.
        refit: whether the network is refitted after the cut.

    Raises:
        InputError: no inputs, or outputs that are no logits.
    """
    if not batches:
        raise InputError("damages are measured on calibration inputs, got none; give data= (--data)")
    part = submodule(model, graph.scope)
    readers = {choice.name: consumers(part, graph, graph.group(choice.name)) for choice in space.widths}
    layers = {one.param: one.modules for found in readers.values() for one in found}
    covariances = _covariances(model, layers, batches) if refit else {}
    changes = {param: _Change() for param in layers}
    measured: dict[str, list[int]] = {}
    for choice in space.widths:
        measured[choice.name] = _measured(choice.options)
        group = graph.group(choice.name)
        for option in measured[choice.name]:
            for one in readers[choice.name]:
                delta = _delta(one, group, scores[choice.name], option, covariances.get(one.param))
                changes[one.param].keys.append((choice.name, option))
                changes[one.param].columns.append(delta.reshape(-1))
    totals = _priced(model, graph, layers, changes, [c.name for c in space.blocks], batches, seed, temperature)
    found: dict[str, dict[int, float]] = {}
    for choice in space.widths:
        known = {option: totals[key] for option in measured[choice.name] if (key := (choice.name, option)) in totals}
        if known or not measured[choice.name]:
            found[choice.name] = _interpolated(choice.options, known)
    for block in space.blocks:
        if (key := (block.name, 0)) in totals:
            found[block.name] = {0: totals[key], 1: 0.0}
    if refit:
        left = _left_by_refit(part, graph, readers)
        found = {name: {o: left.get(name, 1.0) * harm for o, harm in harms.items()} for name, harms in found.items()}
    ceiling = sum((max(harms.values()) for harms in found.values()), start=1.0)
    for unknown in space.choices:
        if unknown.name not in found:
            full = unknown.options[-1]
            found[unknown.name] = {o: ceiling * (2 - o / full) if o < full else 0.0 for o in unknown.options}
    return found


def _left_by_refit(part: nn.Module, graph: ModelGraph, readers: Mapping[str, Sequence[Consumer]]) -> dict[str, float]:
    """Group or block -> the share of its harm that the layers behind cannot make good, 1 for the last layer."""
    modules = dict(part.named_modules())
    ran = dict.fromkeys(graph.program.owner(node).partition("@")[0] for node in graph.program.live)
    order = {path: n for n, path in enumerate(path for path in ran if path in modules and is_layer(modules[path]))}
    starts = {
        name: [order[path] for one in found if (path := one.param.rpartition(".")[0]) in order]
        for name, found in readers.items()
    }
    for block in graph.blocks:
        starts[block.name] = [number for path, number in order.items() if path.startswith(f"{block.name}.")]
    last = max(len(order) - 1, 1)
    return {name: exp(-MENDED * (1 - min(numbers) / last)) for name, numbers in starts.items() if numbers}


def _measured(options: Sequence[int]) -> list[int]:
    """At most MEASURED of the options below full width, the ends among them, evenly spread."""
    below = list(options[:-1])
    if len(below) <= MEASURED:
        return below
    return [below[i] for i in sorted({round(i) for i in np.linspace(0, len(below) - 1, MEASURED)})]


def _interpolated(options: Sequence[int], known: Mapping[int, float]) -> dict[int, float]:
    """Harms of all options: never rising with the width, linear between measured ones on a square-root scale."""
    points = sorted({**known, options[-1]: 0.0}.items())
    widths = np.array([width for width, _ in points], dtype=np.float64)
    roots = np.sqrt(np.array([harm for _, harm in points]))
    falling = np.maximum.accumulate(roots[::-1])[::-1]
    return {option: float(np.interp(option, widths, falling) ** 2) for option in options}


def _delta(one: Consumer, group: CoupledGroup, scores: Tensor, option: int, covariance: Tensor | None) -> Tensor:
    """Change of the layer's weight matrix (groups, F, O) when the group keeps its best `option` units."""
    layer = one.modules[0]
    matrix = weight_matrix(layer).detach().to(torch.float64)
    flat = matrix.flatten(0, 1)
    kept = torch.zeros(group.width, dtype=torch.bool)
    kept[list(best_units(group, scores, option))] = True
    columns = torch.from_numpy(one.columns)
    gone = columns[~kept].reshape(-1)
    gone = gone[gone >= 0]
    delta = torch.zeros_like(flat)
    delta[gone] = -flat[gone]
    if covariance is not None:
        features = matrix.shape[1]
        for number in range(matrix.shape[0]):
            own = gone[gone // features == number] - number * features
            stay = torch.ones(features, dtype=torch.bool)
            stay[own] = False
            if own.numel() and stay.any():
                gram = covariance[number]
                take_over = torch.linalg.solve(gram[stay][:, stay], gram[stay][:, own] @ matrix[number][own])
                delta[number * features + stay.nonzero()[:, 0]] = take_over
    return delta.reshape(matrix.shape).to(torch.promote_types(weight_matrix(layer).dtype, torch.float32))


def _covariances(model: nn.Module, layers: Layers, batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """Damped covariances (groups, F, F), float64, of what each layer reads; very wide layers are left out."""
    chosen = {param: held for param, held in layers.items() if weight_matrix(held[0]).shape[1] <= LARGEST}
    sums = {param: RowSums() for param in chosen}
    share = max(1, ROWS // len(batches))
    generator = torch.Generator().manual_seed(0)

    def watch(param: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = _read(args, kwargs)
            count = row_count(layer, x)
            rows = torch.randint(count, (min(share, count),), generator=generator)
            with torch.autocast(x.device.type, enabled=False):
                sums[param].add(_wide(patches(layer, x, rows)).transpose(0, 1))

        return hook

    handles = [
        layer.register_forward_pre_hook(watch(param), with_kwargs=True)
        for param, held in chosen.items()
        for layer in held
    ]
    with _removed(handles), undisturbed(model):
        for batch in batches:
            model(_fitting(model, batch))
    found = {}
    for param, known in sums.items():
        if not known.count:
            continue
        gram = known.covariance()
        damp = 1e-3 * gram.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
        found[param] = gram + torch.diag_embed(damp[:, None].expand(gram.shape[:2]))
    return found


@dataclass
class _Harms:
    """By (choice, option): the change of v . z of each image at hand, and half its square summed over images before."""

    images: int = 0
    current: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    totals: dict[tuple[str, int], float] = field(default_factory=dict)

    def add(self, key: tuple[str, int], change: Tensor) -> None:
        self.current[key] = self.current[key] + change if key in self.current else change

    def next_images(self) -> None:
        for key, change in self.current.items():
            self.totals[key] = self.totals.get(key, 0.0) + 0.5 * float(change.double().square().sum())
        self.current.clear()

    def watch_layer(self, change: _Change) -> Callable[..., Tensor]:
        matrix = torch.stack(change.columns, 1)  # (groups * F * O, options)

        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> Tensor:
            source, result = _read(args, kwargs).detach(), _tracked(result)

            def back(gradient: Tensor) -> None:
                x, g = (_wide(rows) for rows in (patches(layer, source), output_rows(layer, gradient)))
                x, g = (rows.reshape(self.images, -1, *rows.shape[1:]) for rows in (x, g))
                products = torch.einsum("npgf,npgo->ngfo", x, g)
                for key, column in zip(change.keys, (products.flatten(1) @ matrix).T, strict=True):
                    self.add(key, column)

            result.register_hook(back)  # type: ignore[no-untyped-call]
            return result

        return hook

    def watch_block(self, name: str, relu: bool) -> Callable[..., Tensor]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> Tensor:
            without, result = _read(args, kwargs).detach(), _tracked(result)
            change = (without.relu() if relu else without) - result.detach()

            def back(gradient: Tensor) -> None:
                self.add((name, 0), (_wide(gradient) * change).reshape(self.images, -1).sum(1))

            result.register_hook(back)  # type: ignore[no-untyped-call]
            return result

        return hook


def _priced(
    model: nn.Module,
    graph: ModelGraph,
    layers: Layers,
    changes: Mapping[str, _Change],
    blocks: Sequence[str],
    batches: Sequence[Tensor],
    seed: int,
    temperature: float,
) -> dict[tuple[str, int], float]:
    """The mean over images of half the squared change of v . z, by (choice, option)."""
    part = submodule(model, graph.scope)
    relu = {block.name: block.relu for block in graph.blocks}
    generator = torch.Generator().manual_seed(seed)
    harms = _Harms()
    bodies = {name: part.get_submodule(name) for name in blocks}
    watched = [*bodies.values(), *(layer for held in layers.values() for layer in held)]
    size = batch_size(graph) if _images_come_first(model, watched, batches[0]) else 1
    handles = [
        layer.register_forward_hook(hook, with_kwargs=True)
        for param, held in layers.items()
        if changes[param].keys
        for hook in [harms.watch_layer(changes[param])]
        for layer in held
    ]
    handles += [
        body.register_forward_hook(harms.watch_block(name, relu[name]), with_kwargs=True)
        for name, body in bodies.items()
    ]
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with _removed(handles), _without_gradients(frozen), undisturbed(model), torch.enable_grad():
        for batch in batches:
            for inputs in torch.split(batch, size):
                harms.images = len(inputs)
                logits = _wide(_first_tensor(model(_tracked(_fitting(model, inputs)))))
                scalar = (logits * _direction(logits.detach(), temperature, generator)).sum()
                if scalar.requires_grad:
                    torch.autograd.backward(scalar)
                harms.next_images()
    count = sum(len(batch) for batch in batches)
    return {key: total / count for key, total in harms.totals.items()}


def _images_come_first(model: nn.Module, modules: Sequence[nn.Module], inputs: Tensor) -> bool:
    """Whether the first image's part of what each module reads is its first part.

    Not so where a module reads the same for all images, or another axis comes first: then the shares of the images
    cannot be told apart, and each is priced on its own.
    """
    seen: list[Tensor] = []

    def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(_read(args, kwargs))

    handles = [module.register_forward_pre_hook(look, with_kwargs=True) for module in modules]
    with _removed(handles), undisturbed(model):
        model(_fitting(model, inputs[:1]))
        alone = seen.copy()
        seen.clear()
        model(_fitting(model, inputs[:2]))
    return len(alone) == len(seen) and all(map(partial(_leads, len(inputs[:2])), alone, seen))


def _leads(images: int, alone: Tensor, both: Tensor) -> bool:
    """Whether what one image gives is the first part of what several give, up to rounding."""
    if len(both) != images * len(alone):
        return False
    alone, first = _wide(alone), _wide(both[: len(alone)])
    return alone.shape == first.shape and float((alone - first).norm()) <= 0.05 * float(alone.norm())


def batch_size(graph: ModelGraph) -> int:
    """How many images' activations fit into BYTES, from 1 to 64."""
    numel = sum(prod(op.shape) for op in graph.ops if op.shape)
    return max(1, min(64, BYTES // (4 * max(numel, 1))))


def _direction(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Drawn with the Fisher information of the softmax at `temperature` along axis 1 as its covariance.

    A single output has no softmax: there the covariance is one.
    """
    noise = torch.randn(logits.shape, generator=generator).to(logits)
    if logits.shape[1] == 1:
        return noise
    p = (logits / temperature).softmax(1)
    return p.sqrt() * noise - p * (p.sqrt() * noise).sum(1, keepdim=True)


def _first_tensor(value: Any) -> Tensor:
    found = next((leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.ndim >= 2), None)
    if found is None:
        raise InputError("damages need a model that returns a tensor (n, classes, ...); use another controller")
    return found


def _read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """What a module reads, however it is called."""
    return next(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))


def _fitting(model: nn.Module, inputs: Tensor) -> Tensor:
    """Inputs in the model's floating type; integers stay."""
    kind = next((value.dtype for value in model.parameters() if value.is_floating_point()), inputs.dtype)
    return inputs.to(kind) if inputs.is_floating_point() else inputs


def _wide(value: Tensor) -> Tensor:
    """In float32 at least."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _tracked(value: Tensor) -> Tensor:
    """The value, as a start of the autograd graph where it has none; integers stay.

    A copy, since the code behind may write into it, which a leaf does not allow.
    """
    if value.requires_grad or not value.is_floating_point():
        return value
    with torch.enable_grad():
        return value.detach().requires_grad_().clone()


@contextmanager
def _removed(handles: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _without_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Parameters need no gradient inside: only activations do."""
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
