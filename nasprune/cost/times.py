"""How the time of a network depends on its widths: a sum over its calls, measured on the device.

A convolution or linear layer is run alone at a grid of widths, of what it reads and of what it makes. Its time is
fitted as a + b in + c out + d in out with none of them negative, so that it is, like FLOPs, a sum of products of
widths, and the same exact solver spreads it. Pruning by measured times of layers is HALP's idea (Shen et al. 2021,
arXiv:2110.10811); departures: widths on both sides of a layer count, and the fit smooths what the grid does not show.
Other calls take the time that a clock gives them, in proportion to what they make.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from statistics import fmean, median
from typing import cast

import numpy as np
import torch
from scipy.optimize import nnls
from torch import nn
from torch.fx import Node

from nasprune.common.allocation import memory_reused
from nasprune.cost.clock import call_seconds
from nasprune.cost.runtimes import EAGER, Runtime
from nasprune.cost.sizes import Product, Sizes
from nasprune.cost.timed_layers import Layer, call_key, layer_of
from nasprune.graph.model import ModelGraph
from nasprune.graph.program import arguments

GRID = (1.0, 0.75, 0.5, 0.25)
REPEATS = 5
OTHERS = 0.02
"""The least share of the time of a network that is not that of its layers."""


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
class Table:
    """What a device was measured to take, in nanoseconds: layers by what decides their time, and so other calls.

    layers: by `Layer.key`. calls: of one item, by `call_key`.
    """

    layers: Mapping[str, Fit] = field(default_factory=dict)
    calls: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Times:
    """Nanoseconds of every call of a program. layers: fitted ones; others: in proportion to what the call makes."""

    layers: Mapping[str, Fit]
    others: Mapping[str, float]

    @property
    def dense(self) -> float:
        return sum(fit.dense for fit in self.layers.values()) + sum(self.others.values())

    def filling(self, nanoseconds: float, *, fused: bool) -> Times:
        """Times that add up to what the whole network takes.

        fused: a runtime joins other calls to the layers that they follow, so that layers keep their times and the
        others share the rest, at least `OTHERS` of the whole; else every time is scaled alike.
        """
        layers = sum(fit.dense for fit in self.layers.values())
        others = self.dense - layers
        if not fused or not layers or not others:
            return self.scaled(nanoseconds / max(self.dense, 1.0))
        left = max(nanoseconds - layers, OTHERS * nanoseconds)
        kept = self.scaled((nanoseconds - left) / layers)
        return Times(kept.layers, self.scaled(left / others).others)

    def scaled(self, factor: float) -> Times:
        """Every time times the factor."""
        layers = {name: fit.scaled(factor) for name, fit in self.layers.items()}
        return Times(layers, {name: value * factor for name, value in self.others.items()})


@memory_reused()
def times_of(
    model: nn.Module,
    graph: ModelGraph,
    *,
    batch: int = 1,
    known: Table | None = None,
    runtime: Runtime = EAGER,
    on_step: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[Times, Table]:
    """Measures the calls of a traced model that are not in the table, and gives what there is of them, to be kept.

    Args:
        model: the traced part, left as it was. batch: items that run at once; the example inputs have one.
        known: what was measured before; where it has all calls, nothing is run.
        runtime: what runs the layers; other calls are timed as PyTorch runs them.
        on_step: told how many layers are measured.
    """
    known = known or Table()
    device = next((value.device for value in model.parameters()), torch.device("cpu"))
    asked = {node.name: layer for node in graph.program.live if (layer := layer_of(node, batch)) is not None}
    fits = {layer.key: known.layers.get(layer.key) for layer in asked.values()}
    new = {layer.key: layer for layer in asked.values() if fits[layer.key] is None}
    with torch.inference_mode():
        for number, (key, layer) in enumerate(new.items(), 1):
            fits[key] = measured(layer, device, runtime)
            on_step(number, len(new))
    layers = {key: fit for key, fit in fits.items() if fit is not None}
    calls = _calls(model, graph, asked, known.calls)
    others = {name: batch * calls[key] for name, key in _others(graph, asked).items()}
    return Times({name: layers[layer.key] for name, layer in asked.items()}, others), Table(layers, calls)


def _others(graph: ModelGraph, layers: Container[str]) -> dict[str, str]:
    """The keys of the calls that are no layers, by name."""
    live = (node for node in graph.program.live if node.op == "call_function" and node.name not in layers)
    return {node.name: call_key(node) for node in live}


def _calls(
    model: nn.Module, graph: ModelGraph, layers: Container[str], known: Mapping[str, float]
) -> Mapping[str, float]:
    """Nanoseconds of the calls that are no layers, by their keys; the program is run where some are not known."""
    others = _others(graph, layers)
    if known.keys() >= set(others.values()):
        return {key: known[key] for key in others.values()}
    found: dict[str, list[float]] = {key: [] for key in others.values()}
    for node, seconds in call_seconds(model, graph, REPEATS).items():
        if node.name in others:
            found[others[node.name]].append(1e9 * seconds)
    return {key: fmean(values) for key, values in found.items() if values}


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


def measured(layer: Layer, device: torch.device, runtime: Runtime = EAGER) -> Fit:
    """Runs the layer over the grid, several times in turn, and fits the medians relative to their size."""
    points = [(read, made) for read in GRID for made in GRID]
    calls = [runtime.layer(layer.at(read, made), device) for read, made in points]
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
