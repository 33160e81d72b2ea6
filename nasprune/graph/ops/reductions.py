"""Reductions: means, sums and extremes over axes."""

from __future__ import annotations

from nasprune.graph.labels import Labels, squeezed
from nasprune.graph.rules import OpCall, OpRule, axes_of, reduced


class Reduction(OpRule):
    """Over space, labels pass; over an index axis, the channels that are summed go together; over channels, frozen."""

    targets = (
        "all", "amax", "amin", "aminmax", "any", "argmax", "argmin", "count_nonzero", "frobenius_norm",
        "linalg_vector_norm", "logsumexp", "max", "mean", "median", "min", "norm", "prod", "std", "std_mean", "sum",
        "var", "var_mean",
    )  # fmt: skip

    def apply(self, call: OpCall) -> Labels | list[Labels]:
        if "other" in call.args:
            return call.give_up()
        source = call.get("self", call.get("input"))
        ndim = len(call.shape_of(source))
        axes = axes_of(call.get("dim"), ndim)
        labels: Labels = tuple(reduced(call, call.labels_of(source), axes))
        if not call.get("keepdim", False):
            for axis in sorted(axes, reverse=True):
                labels = squeezed(labels, axis)
        pair = isinstance(call.node.meta.get("val"), list | tuple)
        return [labels, labels] if pair else labels


RULES = (Reduction(),)
