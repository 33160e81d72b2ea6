"""fvcore's counting rules as products of axis sizes, one per operator of the captured program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
from torch.fx import Node

from nasprune.cost.sizes import Product, Sizes
from nasprune.graph.program import arguments, operator, shape_of


@dataclass(frozen=True)
class Count:
    """What one operation adds. operator: fvcore's name for it."""

    operator: str
    flops: Product
    activations: Product | None = None


def count(node: Node, sizes: Sizes) -> Count | None:
    """The counts of `node`, or `None` where fvcore counts nothing."""
    name = operator(node)
    if isinstance(arguments(node).get("padding"), str):
        return None  # fvcore does not see convolutions with padding="same" or "valid", so neither do we
    formula = FORMULAS.get("conv" if name.startswith("conv") and name != "contiguous" else name)
    return formula(node, sizes) if formula is not None else None


def _convolution(node: Node, sizes: Sizes) -> Count:
    args = arguments(node)
    source, weight = sizes.of(args["input"]), sizes.of(args["weight"])
    result = sizes.of(node)
    transposed = "transpose" in operator(node) or bool(args.get("transposed"))
    spatial = len(weight) - 2
    places = (source if transposed else result)[-spatial:]
    batch = source[: len(source) - spatial - 1]
    return Count("conv", Product.of(*batch, *places, *weight), Product.of(*result))


def _linear(node: Node, sizes: Sizes) -> Count:
    args = arguments(node)
    flops = Product.of(*sizes.of(args["input"]), sizes.of(args["weight"])[0])
    return Count("linear", flops, Product.of(*sizes.of(node)))


def _matmul(node: Node, sizes: Sizes) -> Count:
    args = arguments(node)
    left, right = sizes.of(args["self"]), sizes.of(args.get("other", args.get("mat2")))
    result = Product.of(*sizes.of(node))
    return Count(operator(node), Product.of(*left, right[-1]), result if operator(node) != "mm" else None)


def _addmm(node: Node, sizes: Sizes) -> Count:
    args = arguments(node)
    return Count("addmm", Product.of(*sizes.of(args["mat1"]), sizes.of(args["mat2"])[-1]), Product.of(*sizes.of(node)))


def _batch_norm(node: Node, sizes: Sizes) -> Count:
    args = arguments(node)
    affine = args["weight"] is not None
    factor = (5 if affine else 4) if args["training"] else (2 if affine else 1)
    return Count("batch_norm", Product.of(factor, *sizes.of(args["input"])))


def _norm(node: Node, sizes: Sizes) -> Count:
    args = arguments(node)
    factor = 5 if args["weight"] is not None else 4
    return Count(operator(node), Product.of(factor, *sizes.of(args["input"])))


def _einsum(node: Node, sizes: Sizes) -> Count:
    """A constant: channels that reach an einsum are frozen. fvcore halves numpy's estimate of the best path."""
    args = arguments(node)
    shapes = [shape_of(operand) or () for operand in args["tensors"]]
    letters = list(dict.fromkeys(letter for letter in args["equation"] if letter.isalpha()))
    equation = "".join(chr(97 + letters.index(c)) if c.isalpha() else c for c in args["equation"].replace(" ", ""))
    if equation in ("abc,abd->acd", "abc,adc->adb"):
        flops = prod(shapes[0]) * (shapes[1][-1] if equation == "abc,abd->acd" else shapes[1][1])
    else:
        report = np.einsum_path(equation, *(np.broadcast_to(0.0, shape) for shape in shapes), optimize="optimal")[1]
        line = next(line for line in report.splitlines() if "optimized flop" in line.lower())
        flops = int(float(line.split(":")[-1]) / 2)
    return Count("einsum", Product.of(flops), Product.of(*sizes.of(node)))


def _scaled(input_scale: int, output_scale: int) -> Callable[[Node, Sizes], Count]:
    def formula(node: Node, sizes: Sizes) -> Count:
        value = sizes.of(node.all_input_nodes[0]) if input_scale else sizes.of(node)
        return Count(operator(node), Product.of(input_scale + output_scale, *value))

    return formula


FORMULAS: dict[str, Callable[[Node, Sizes], Count]] = {
    "conv": _convolution,
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "bmm": _matmul,
    "addmm": _addmm,
    "einsum": _einsum,
    "batch_norm": _batch_norm,
    "group_norm": _norm,
    "layer_norm": _norm,
    "instance_norm": _norm,
    "upsample_nearest2d": _scaled(0, 1),
    "upsample_bilinear2d": _scaled(0, 4),
    "adaptive_avg_pool2d": _scaled(1, 0),
    "grid_sampler": _scaled(0, 4),
}
