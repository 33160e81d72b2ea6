"""Reductions: means, sums and extremes over axes.

Over a channel axis they are taken over the channels that stay, as a layer norm's statistics are; `verify` compares with
the dense model whose reductions see the kept channels only.
"""

from __future__ import annotations

import operator

from nasprune.graph.labels import Factor, Labels, along, at, squeezed, without
from nasprune.graph.ops.elementwise import merged
from nasprune.graph.rules import OpCall, OpRule, axes_of, reduced

OVER_KEPT = frozenset(
    {
        "all", "amax", "amin", "any", "frobenius_norm", "linalg_norm", "linalg_vector_norm", "logsumexp", "max", "mean",
        "min", "norm", "prod", "std", "std_mean", "sum", "var", "var_mean",
    }
)  # fmt: skip


class Reduction(OpRule):
    """Over space, labels pass; over an index axis, the channels that are summed go together; over channels they end."""

    targets = (*sorted(OVER_KEPT), "aminmax", "argmax", "argmin", "count_nonzero", "median", "nansum", "nanmean")

    def apply(self, call: OpCall) -> Labels | list[Labels]:
        if "other" in call.args:  # max(a, b) of two tensors, element by element
            return merged(call, [(call.labels_of(node), call.shape_of(node)) for node in call.tensors()])
        source = call.get("self", call.get("input"))
        labels, ndim = call.labels_of(source), len(call.shape_of(source))
        axes = axes_of(call.get("dim"), ndim)
        ending = tuple(factor for factor in labels if factor.cut in axes)
        if ending and (call.name not in OVER_KEPT or _reads_places(call) or _counts(call)):
            call.channels.freeze_all(ending, f"{call.where} mixes these channels")
        for factor in ending:
            call.doubt(factor.ids)
        labels = tuple(reduced(call, labels, axes))
        if not call.get("keepdim", False):
            for axis in sorted(axes, reverse=True):
                labels = squeezed(labels, axis)
        pair = isinstance(call.node.meta.get("val"), list | tuple)
        return [labels, labels] if pair else labels


class Similarity(OpRule):
    """Cosine or distance of two tensors along an axis: what both have along it goes together, and ends there."""

    targets = ("cosine_similarity", "pairwise_distance")

    def apply(self, call: OpCall) -> Labels:
        pairs = [(call.labels(name), call.shape_of(call[name])) for name in ("x1", "x2")]
        ndim = max(len(shape) for _, shape in pairs)
        axis = (int(call["dim"]) if call.name == "cosine_similarity" else -1) % ndim
        both = merged(call, pairs)
        for factor in both:
            if factor.cut == axis:
                _end(call, factor)
        result = tuple(reduced(call, both, [axis]))
        return result if call.get("keepdim", False) else squeezed(result, axis)


class Distances(OpRule):
    """The distance of every row of one matrix from every row of another: features go together, and end there."""

    targets = ("cdist",)

    def apply(self, call: OpCall) -> Labels:
        rows = []
        for name in ("x1", "x2"):
            labels, shape = call.labels(name), call.shape_of(call[name])
            features = at(labels, len(shape) - 1)
            call.channels.freeze_all(without(labels, features), f"{call.where} compares these channels")
            own = () if features is None else (along(call.channels.plain(features).flat, 0, 1),)
            rows.append((own, shape[-1:]))
        for factor in merged(call, rows):
            _end(call, factor)
            call.channels.consume(factor.ids)
        return ()


def _end(call: OpCall, factor: Factor) -> None:
    """Channels end in a distance, to which those that are dropped add nothing."""
    if _counts(call):
        call.channels.freeze(factor.ids, f"{call.where} counts these channels")
    call.doubt(factor.ids)


def _reads_places(call: OpCall) -> bool:
    """Whether the code reads where an extreme was found: a number that changes when channels go."""
    return call.name in ("max", "min") and any(
        user.target is operator.getitem and user.args[1] == 1 and bool(user.users) for user in call.node.users
    )


def _counts(call: OpCall) -> bool:
    """Whether a norm is of an order to which dropped channels, as zeros, would add something."""
    order = call.get("ord", call.get("p", 2))
    return order is not None and not isinstance(order, str) and float(order) <= 0


RULES = (Reduction(), Similarity(), Distances())
