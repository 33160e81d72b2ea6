"""Operations that work on each element, alone or with its broadcast partners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nasprune.graph.labels import Factor, Labels, along, at, extended
from nasprune.graph.rules import OpCall, OpRule, Result


class Unary(OpRule):
    """Labels pass unchanged."""

    targets = (
        "abs", "alias", "alpha_dropout", "bernoulli", "celu", "clamp", "clamp_max", "clamp_min", "clone", "conj",
        "_conj", "contiguous", "cos", "detach", "dropout", "elu", "empty_like", "erf", "exp", "expm1",
        "feature_alpha_dropout", "feature_dropout", "fill", "floor", "full_like", "gelu", "hardshrink", "hardsigmoid",
        "hardswish", "hardtanh", "imag", "leaky_relu", "lift_fresh_copy", "log", "log1p", "log_sigmoid",
        "logical_not", "logit", "mish", "nan_to_num", "native_dropout", "neg", "ones_like", "positive", "rand_like",
        "randn_like", "real", "reciprocal", "relu", "relu6", "resolve_conj", "resolve_neg", "round", "rrelu", "rsqrt",
        "selu", "sigmoid", "sign", "silu", "sin", "softplus", "softshrink", "sqrt", "square", "tan", "tanh",
        "tanhshrink", "threshold", "to", "_to_copy", "type_as", "zero", "zeros_like",
    )  # fmt: skip

    def apply(self, call: OpCall) -> Labels:
        return call.labels_of(call.get("self", call.get("input")))


class Broadcast(OpRule):
    """Element-wise operations on several tensors: channels of axes that meet are tied."""

    targets = (
        "add", "addcdiv", "addcmul", "atan2", "bitwise_and", "bitwise_or", "complex", "copy", "div", "eq",
        "floor_divide", "fmax", "fmin", "fmod", "ge", "gt", "hypot", "le", "lerp", "logaddexp", "logical_and",
        "logical_or", "lt", "masked_fill", "maximum", "minimum", "mul", "ne", "polar", "pow", "remainder", "rsub",
        "sub", "true_divide", "where", "xlogy",
    )  # fmt: skip

    def apply(self, call: OpCall) -> Labels:
        operands = [(call.labels_of(node), call.shape_of(node)) for node in call.tensors()]
        return merged(call, operands)


class Pointwise(OpRule):
    """Whatever torch itself says works on each element by itself, as `Broadcast`."""

    targets = ()

    def apply(self, call: OpCall) -> Result:
        found = merged(call, [(call.labels_of(node), call.shape_of(node)) for node in call.tensors()])
        several = call.node.meta.get("val")
        return [found for _ in several] if isinstance(several, list | tuple) else found


class BroadcastTensors(OpRule):
    """All results have the shape that the tensors have together: channels of axes that meet are tied."""

    targets = ("broadcast_tensors",)

    def apply(self, call: OpCall) -> list[Labels]:
        nodes = call["tensors"]
        found = merged(call, [(call.labels_of(node), call.shape_of(node)) for node in nodes])
        return [found for _ in nodes]


def merged(call: OpCall, operands: Sequence[tuple[Labels, tuple[int, ...]]]) -> Labels:
    """Labels of the broadcast of `operands`, given as (labels, shape)."""
    ndim = max(len(shape) for _, shape in operands)
    labels = [extended(own, ndim) for own, _ in operands]
    shapes = [(1,) * (ndim - len(shape)) + shape for _, shape in operands]
    result = []
    for axis in range(ndim):
        spanning = [i for i, shape in enumerate(shapes) if shape[axis] > 1]
        factors = [at(labels[i], axis) for i in spanning]
        known = [factor for factor in factors if factor is not None]
        if not known:
            continue
        if len(known) < len(factors):
            call.channels.freeze_all(known, f"{call.where} combines these channels with an axis of fixed size")
        ids = np.broadcast_arrays(*(factor.ids for factor in known))
        for other in known[1:]:
            call.channels.tie(known[0].ids, other.ids)
        result.append(Factor(ids[0], axis))
    return tuple(result)


class PReLU(OpRule):
    """One slope for each channel of axis 1, or one for all."""

    targets = ("prelu", "_prelu_kernel")

    def apply(self, call: OpCall) -> Labels:
        labels, shape = call.labels("self"), call.shape_of(call["self"])
        slopes = call.shape_of(call["weight"])
        if len(slopes) == 1 and slopes[0] > 1 and len(shape) > 1:
            ids = call.channel_ids(labels, 1, shape[1], f"{call.where} reads channels of fixed number")
            call.tie_vector("weight", ids)
            return call.only(labels, 1, len(shape), ids)
        return labels if len(slopes) < 2 else merged(call, [(labels, shape), (call.labels("weight"), slopes)])


class Glu(OpRule):
    """Gated linear unit: the first half of an axis times the sigmoid of the second; the halves go together."""

    targets = ("glu",)

    def apply(self, call: OpCall) -> Labels:
        labels, shape = call.labels("self"), call.shape_of(call["self"])
        axis = int(call["dim"]) % len(shape)
        factor = at(labels, axis)
        rest = tuple(other for other in labels if other is not factor)
        if factor is None:
            return rest
        halves = call.channels.plain(factor).flat.reshape(2, -1)
        call.channels.tie(halves[0], halves[1])
        return (*rest, along(halves[0], axis, len(shape)))


class Maker(OpRule):
    """Makes a tensor of a size written in the code: its axes are fixed."""

    targets = (
        "arange", "empty", "eye", "full", "linspace", "new_empty", "new_full", "new_ones", "new_zeros", "ones", "rand",
        "randn", "scalar_tensor", "tril_indices", "triu_indices", "zeros", "_assert_tensor_metadata", "_assert_async",
        "sym_size", "sym_numel", "sym_stride",
    )  # fmt: skip

    def apply(self, call: OpCall) -> Labels:
        return ()


RULES = (Unary(), Broadcast(), BroadcastTensors(), PReLU(), Glu(), Maker())
