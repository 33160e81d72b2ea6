"""What operators cost, as products of axis sizes: fvcore's counting rules, and those that nasprune adds to them.

One multiply-add is one FLOP. A formula serves three counters: the prediction for any decision, fvcore's trace of a
network where fvcore has no rule of its own or not a general one (`ADDED`), and the count on a captured program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch.fx import Node

from nasprune.cost.calls import Call, ProgramCall, Shape
from nasprune.cost.contractions import CONTRACTIONS
from nasprune.cost.counts import Count, Formula
from nasprune.cost.recurrent import RECURRENT
from nasprune.cost.sizes import Product
from nasprune.cost.transforms import TRANSFORMS

NAMESPACES = ("aten", "torchvision")


def count(node: Node, sizes: Callable[[Node], Shape]) -> Count | None:
    """The counts of a call of a captured program, or `None` where it counts nothing. sizes: of the program's values."""
    if getattr(node.target, "namespace", "") not in NAMESPACES:
        return None
    call = ProgramCall(node, sizes)
    formula = FORMULAS.get(call.operator)
    return formula(call) if formula is not None else None


def _convolution(call: Call) -> Count:
    source, weight, result = call.given("input"), call.given("weight"), call.result
    transposed = "transpose" in call.operator or bool(call.value("transposed"))
    spatial = len(weight) - 2
    places = (source if transposed else result)[-spatial:]
    batch = source[: len(source) - spatial - 1]
    return Count("conv", (Product.of(*batch, *places, *weight),), (Product.of(*result),))


def _convolution_tbc(call: Call) -> Count:
    """Time, batch, channels; the weight is (kernel, in, out)."""
    return Count("conv", (Product.of(*call.result[:2], *call.given("weight")),), (Product.of(*call.result),))


def _batch_norm(call: Call) -> Count:
    affine = call.shape("weight") is not None
    factor = (5 if affine else 4) if call.value("training") else (2 if affine else 1)
    return Count("batch_norm", (Product.of(factor, *call.given("input")),))


def _norm(call: Call) -> Count:
    factor = 5 if call.shape("weight") is not None else 4
    return Count(call.operator, (Product.of(factor, *call.given("input")),))


def _scaled(input_scale: int, output_scale: int) -> Formula:
    def formula(call: Call) -> Count:
        value = call.given("input", "self") if input_scale else call.result
        return Count(call.operator, (Product.of(input_scale + output_scale, *value),))

    return formula


CONVOLUTIONS: Mapping[str, Formula] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "_convolution", "_convolution_mode"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "deform_conv2d"), _convolution),
    "conv_tbc": _convolution_tbc,
}

ELEMENTWISE: Mapping[str, Formula] = {
    "batch_norm": _batch_norm,
    "group_norm": _norm,
    "layer_norm": _norm,
    "instance_norm": _norm,
    "upsample_nearest2d": _scaled(0, 1),
    "upsample_bilinear2d": _scaled(0, 4),
    "adaptive_avg_pool2d": _scaled(1, 0),
    "grid_sampler": _scaled(0, 4),
}
"""What fvcore counts besides products, in its own estimate of operations an element."""

FORMULAS: Mapping[str, Formula] = {**CONVOLUTIONS, **ELEMENTWISE, **CONTRACTIONS, **RECURRENT, **TRANSFORMS}

PRODUCTS = frozenset({"conv", *CONTRACTIONS, *RECURRENT})
"""Names under which products with weights, or of tensors with each other, are counted."""

ADDED = frozenset(FORMULAS) - {"_convolution", "linear", "mm", "bmm", "addmm", *ELEMENTWISE}
"""Operators that nasprune counts and fvcore alone would not, or not in all their forms."""
