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

Only layers that run as modules are seen. A group that none of them reads, as where a convolution is called as a
function, has no known harm; narrowing it is priced above everything else together, so that it is done last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from nasprune.consumers import Consumer, consumers
from nasprune.errors import InputError
from nasprune.graph.capture import submodule, undisturbed
from nasprune.graph.model import CoupledGroup, ModelGraph
from nasprune.layers import patches, row_count, weight_matrix
from nasprune.selection import best_units
from nasprune.space import SearchSpace

TEMPERATURE = 4.0
ROWS = 20_000
LARGEST = 6_144  # features up to which a layer's refit is taken into account
MEASURED = 8  # options of a group that are measured; the others are interpolated
BYTES = 2**30  # of activations that a backward pass may hold

Damages = Mapping[str, Mapping[int, float]]


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
    layers = {one.param: one.modules[0] for found in readers.values() for one in found}
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
        found[block.name] = {0: totals[(block.name, 0)], 1: 0.0}
    ceiling = sum((max(harms.values()) for harms in found.values()), start=1.0)
    for choice in space.widths:
        if choice.name not in found:
            full = choice.options[-1]
            found[choice.name] = {o: ceiling * (2 - o / full) if o < full else 0.0 for o in choice.options}
    return found


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
    return delta.reshape(matrix.shape).to(torch.float32)


def _covariances(model: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """Damped covariances (groups, F, F), float64, of what each layer reads; very wide layers are left out."""
    sums: dict[str, tuple[int, Tensor, Tensor]] = {}
    share = max(1, ROWS // len(batches))
    generator = torch.Generator().manual_seed(0)

    def watch(param: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            count = row_count(layer, args[0])
            rows = torch.randint(count, (min(share, count),), generator=generator)
            x = patches(layer, args[0], rows).transpose(0, 1)
            n, xx, total = len(rows), (x.transpose(1, 2) @ x).double(), x.sum(1).double()
            if param in sums:
                known = sums[param]
                n, xx, total = n + known[0], xx + known[1], total + known[2]
            sums[param] = n, xx, total

        return hook

    chosen = {param: layer for param, layer in layers.items() if weight_matrix(layer).shape[1] <= LARGEST}
    handles = [layer.register_forward_pre_hook(watch(param)) for param, layer in chosen.items()]
    with _removed(handles), undisturbed(model):
        for batch in batches:
            model(batch)
    found = {}
    for param, (n, xx, total) in sums.items():
        mean = total / n
        gram = xx / n - mean[:, :, None] * mean[:, None, :]
        damp = 1e-3 * gram.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
        found[param] = gram + torch.diag_embed(damp[:, None].expand(gram.shape[:2]))
    return found


def _priced(
    model: nn.Module,
    graph: ModelGraph,
    layers: Mapping[str, nn.Module],
    changes: Mapping[str, _Change],
    blocks: Sequence[str],
    batches: Sequence[Tensor],
    seed: int,
    temperature: float,
) -> dict[tuple[str, int], float]:
    """The mean over images of half the squared change of v . z, by (choice, option)."""
    part = submodule(model, graph.scope)
    relu = {block.name: block.relu for block in graph.blocks}
    current: dict[tuple[str, int], Tensor] = {}
    totals: dict[tuple[str, int], float] = {}

    def add(key: tuple[str, int], change: Tensor) -> None:
        current[key] = current[key] + change if key in current else change

    def watch_layer(param: str) -> Callable[..., None]:
        matrix, keys = torch.stack(changes[param].columns, 1), changes[param].keys

        def hook(layer: nn.Module, args: tuple[Tensor, ...], result: Tensor) -> None:
            source = args[0].detach()
            items = len(source)

            def back(gradient: Tensor) -> None:
                x = patches(layer, source)
                groups, width = x.shape[1], weight_matrix(layer).shape[2]
                last = gradient if isinstance(layer, nn.Linear) else gradient.movedim(1, -1)
                g = last.reshape(items, -1, groups, width)
                products = torch.einsum("npgf,npgo->ngfo", x.reshape(items, -1, groups, x.shape[2]), g)
                for key, column in zip(keys, (products.flatten(1) @ matrix).T, strict=True):
                    add(key, column)

            result.register_hook(back)  # type: ignore[no-untyped-call]

        return hook

    def watch_block(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], result: Tensor) -> None:
            without = args[0].detach()
            change = (without.relu() if relu[name] else without) - result.detach()
            result.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: add((name, 0), (gradient * change).flatten(1).sum(1))
            )

        return hook

    handles = [layer.register_forward_hook(watch_layer(param)) for param, layer in layers.items()]
    handles += [part.get_submodule(name).register_forward_hook(watch_block(name)) for name in blocks]
    generator = torch.Generator().manual_seed(seed)
    count = 0
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with _removed(handles), _without_gradients(frozen), undisturbed(model), torch.enable_grad():
        for batch in batches:
            for inputs in torch.split(batch, batch_size(graph)):
                current.clear()
                logits = _first_tensor(model(inputs.detach().clone().requires_grad_()))
                scalar = (logits * _direction(logits.detach(), temperature, generator)).sum()
                torch.autograd.backward(scalar)
                for key, change in current.items():
                    totals[key] = totals.get(key, 0.0) + 0.5 * float(change.double().square().sum())
                count += len(inputs)
    return {key: total / count for key, total in totals.items()}


def batch_size(graph: ModelGraph) -> int:
    """How many images' activations fit into BYTES, from 1 to 64."""
    numel = sum(prod(op.shape) for op in graph.ops if op.shape)
    return max(1, min(64, BYTES // (4 * max(numel, 1))))


def _direction(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Drawn with the Fisher information of the softmax at `temperature` along axis 1 as its covariance."""
    p = (logits / temperature).softmax(1)
    noise = torch.randn(p.shape, generator=generator).to(p)
    return p.sqrt() * noise - p * (p.sqrt() * noise).sum(1, keepdim=True)


def _first_tensor(value: Any) -> Tensor:
    found = next((leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.ndim >= 2), None)
    if found is None:
        raise InputError("damages need a model that returns a tensor (n, classes, ...); use another controller")
    return found


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
