"""How the time of a network depends on its widths: a sum over its calls, measured on the device.

A convolution or linear layer is run alone at a grid of widths, of what it reads and of what it makes. Its time is
fitted as a + b in + c out + d in out with none of them negative, so that it is, like FLOPs, a sum of products of
widths, and the same exact solver spreads it. Pruning by measured times of layers is HALP's idea (Shen et al. 2021,
arXiv:2110.10811); departures: widths on both sides of a layer count, and the fit smooths what the grid does not show.
Other calls take the time that a clock gives them, in proportion to what they make.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from statistics import median
from typing import cast

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn
from torch.fx import Node

from nasprune.cost.clock import call_seconds
from nasprune.cost.sizes import Product, Sizes
from nasprune.graph.model import ModelGraph
from nasprune.graph.program import arguments, operator, shape_of

GRID = (1.0, 0.75, 0.5, 0.25)
REPEATS = 5
LAYERS = ("conv1d", "conv2d", "conv3d", "linear")


@dataclass(frozen=True)
class Fit:
    """Nanoseconds of one layer: constant + read * in + made * out + both * in * out, shares of the dense widths."""

    constant: float
    read: float
    made: float
    both: float

    @property
    def dense(self) -> float:
        return self.constant + self.read + self.made + self.both

    def scaled(self, factor: float) -> Fit:
        return Fit(self.constant * factor, self.read * factor, self.made * factor, self.both * factor)


@dataclass(frozen=True)
class Layer:
    """What decides the time of a layer alone: its operator, shapes at batch `batch`, and settings."""

    operator: str
    shape: tuple[int, ...]
    weight: tuple[int, ...]
    bias: bool
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    dtype: str = "float32"

    @property
    def key(self) -> str:
        return repr(self)

    def run_at(self, read: float, made: float, device: torch.device) -> Callable[[], Tensor]:
        """The layer at shares of its widths, ready to run. A depthwise convolution reads as much as it makes."""
        kind = getattr(torch, self.dtype)
        axis = len(self.shape) - 1 if self.operator == "linear" else 1
        depthwise = 1 < self.groups == self.shape[axis]
        groups = _share(self.groups, made) if depthwise else self.groups
        reads = groups if depthwise else groups * _share(self.shape[axis] // groups, read)
        makes = groups * _share(self.weight[0] // self.groups, 1.0 if depthwise else made)
        shape = [*self.shape]
        shape[axis] = reads
        x = torch.randn(shape, device=device).to(kind)
        weight = torch.randn(makes, reads // groups, *self.weight[2:], device=device).to(kind)
        bias = torch.randn(makes, device=device).to(kind) if self.bias else None
        if self.operator == "linear":
            return lambda: nn.functional.linear(x, weight, bias)
        call = getattr(nn.functional, self.operator)
        return lambda: call(x, weight, bias, self.stride, self.padding, self.dilation, groups)


@dataclass(frozen=True)
class Times:
    """Nanoseconds of every call of a program. layers: fitted ones; others: in proportion to what the call makes."""

    layers: Mapping[str, Fit]
    others: Mapping[str, float]

    @property
    def dense(self) -> float:
        return sum(fit.dense for fit in self.layers.values()) + sum(self.others.values())

    def scaled(self, factor: float) -> Times:
        """Every time times the factor."""
        layers = {name: fit.scaled(factor) for name, fit in self.layers.items()}
        return Times(layers, {name: value * factor for name, value in self.others.items()})


def times_of(
    model: nn.Module,
    graph: ModelGraph,
    *,
    batch: int = 1,
    known: Mapping[str, Fit] | None = None,
    on_step: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[Times, Mapping[str, Fit]]:
    """Measures the calls of a traced model, and gives what was measured of single layers, for `known` next time.

    Args:
        model: the traced part, left as it was. batch: items that run at once; the example inputs have one.
        on_step: told how many layers are measured.
    """
    device = next((value.device for value in model.parameters()), torch.device("cpu"))
    asked = {node.name: layer for node in graph.program.live if (layer := layer_of(node, batch)) is not None}
    fits = dict(known or {})
    new = {layer.key: layer for layer in asked.values() if layer.key not in fits}
    with torch.inference_mode():
        for number, (key, layer) in enumerate(new.items(), 1):
            fits[key] = measured(layer, device)
            on_step(number, len(new))
    clock = call_seconds(model, graph, REPEATS)
    others = {node.name: 1e9 * batch * seconds for node, seconds in clock.items() if node.name not in asked}
    live = {node.name for node in graph.program.live}
    return Times(
        {name: fits[layer.key] for name, layer in asked.items()},
        {name: value for name, value in others.items() if name in live},
    ), {layer.key: fits[layer.key] for layer in asked.values()}


def timed_products(node: Node, sizes: Sizes, times: Times) -> list[tuple[Product, float]]:
    """The time of one call as products of sizes, each with the nanoseconds of a product that is one."""
    if node.name in times.layers:
        fit, weight = times.layers[node.name], sizes.of(cast(Node, arguments(node)["weight"]))
        read, made = Product.of(weight[1]), Product.of(weight[0])
        pairs = [(Product.of(1), fit.constant), (read, fit.read), (made, fit.made)]
        return [
            _each_of(product, time) for product, time in [*pairs, (Product.of(weight[0], weight[1]), fit.both)] if time
        ]
    nanoseconds = times.others.get(node.name, 0.0)
    return [_each_of(Product.of(*sizes.of(node)), nanoseconds)] if nanoseconds else []


def _each_of(product: Product, nanoseconds: float) -> tuple[Product, float]:
    """Such that the dense product takes the nanoseconds."""
    return product, nanoseconds / max(product.coefficient * prod(extent.dense for extent in product.extents), 1)


def layer_of(node: Node, batch: int) -> Layer | None:
    """The layer that a call of a program is, or `None`: tensors must be whole, weights parameters of fixed size."""
    name = operator(node)
    if node.op != "call_function" or name not in LAYERS:
        return None
    given = arguments(node)
    source, weight = (given[key] if isinstance(given[key], Node) else None for key in ("input", "weight"))
    shape, size = (shape_of(one) if one is not None else None for one in (source, weight))
    if source is None or not shape or not size or len(shape) < 2:
        return None
    settings: dict[str, object] = {}
    if name != "linear":
        spatial = len(size) - 2
        if len(shape) != len(size):
            return None
        settings = {key: _each(given[key], spatial) for key in ("stride", "dilation", "padding")}
        settings["groups"] = int(given["groups"])
    kind = str(source.meta["val"].dtype).removeprefix("torch.")
    return Layer(
        name,
        (shape[0] * batch, *shape[1:]),
        tuple(size),
        given.get("bias") is not None,
        dtype=kind,
        **settings,  # type: ignore[arg-type]
    )


def measured(layer: Layer, device: torch.device) -> Fit:
    """Runs the layer over the grid, several times in turn, and fits the medians relative to their size."""
    points = [(read, made) for read in GRID for made in GRID]
    calls = [layer.run_at(read, made, device) for read, made in points]
    spent: list[list[float]] = [[] for _ in points]
    for repeat in range(1 + REPEATS):
        for number, call in enumerate(calls):
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repeat:
                spent[number].append(1e9 * (time.perf_counter() - start))
    return fitted(points, [median(each) for each in spent])


def fitted(points: Sequence[tuple[float, float]], values: Sequence[float]) -> Fit:
    """Least squares of relative errors, no coefficient below zero."""
    rows = np.array([[1.0, read, made, read * made] for read, made in points])
    wanted = np.array(values, dtype=np.float64).clip(min=1.0)
    found, _ = nnls(rows / wanted[:, None], np.ones(len(wanted)))
    return Fit(*map(float, found))


def _share(whole: int, share: float) -> int:
    return max(1, round(whole * share))


def _each(value: object, spatial: int) -> tuple[int, ...] | str:
    if isinstance(value, str):
        return value
    sizes = [int(size) for size in value] if isinstance(value, list | tuple) else [int(str(value))]
    return tuple(sizes * spatial if len(sizes) == 1 else sizes)
