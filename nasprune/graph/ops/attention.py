"""Attention as one operation: heads and the features of a head as channels.

Queries and keys lose the same features, which takes these out of the sum of each product exactly; where the operation
divides by the root of the number of features, it counts those that stay.
"""

from __future__ import annotations

import numpy as np

from nasprune.graph.labels import Factor, Labels, at, extended
from nasprune.graph.ops.elementwise import merged
from nasprune.graph.rules import OpCall, OpRule


class Attention(OpRule):
    """scaled_dot_product_attention(query (..., L, E), key (..., S, E), value (..., S, Ev)) -> (..., L, Ev)."""

    targets = ("scaled_dot_product_attention",)

    def apply(self, call: OpCall) -> Labels:
        if call.get("enable_gqa"):
            return call.give_up(f"{call.where} shares heads between queries")
        names, ndim = ("query", "key", "value"), len(call.shape)
        shapes = {name: call.shape_of(call[name]) for name in names}
        if any(len(shape) != ndim for shape in shapes.values()):
            return call.give_up(f"{call.where} broadcasts queries, keys and values of different rank")
        own = {name: call.labels(name) for name in names}
        self._features(call, at(own["query"], ndim - 1), at(own["key"], ndim - 1))
        for name, axis in (("key", ndim - 2), ("value", ndim - 2)):
            tokens = at(own[name], axis)
            if tokens is not None:
                call.channels.freeze(tokens.ids, f"{call.where} attends over these channels")
        passed = [self._passed(call, own[name], shapes[name], ndim) for name in names]
        mask = call.get("attn_mask")
        if mask is not None:
            shape = call.shape_of(mask)
            shape = (1,) * (ndim - len(shape)) + shape
            for axis in (ndim - 2, ndim - 1):
                over = at(extended(call.labels_of(mask), ndim), axis)
                if over is not None:
                    call.channels.freeze(over.ids, f"{call.where} attends over these channels")
            passed.append(self._passed(call, extended(call.labels_of(mask), ndim), shape, ndim))
        result = merged(call, passed)
        values = at(own["value"], ndim - 1)
        queries = at(own["query"], ndim - 2)
        ends = [call.channels.align(factor, [other]) for factor, other in ((values, ndim - 2), (queries, ndim - 1))
                if factor is not None]  # fmt: skip
        return (*result, *ends)

    @staticmethod
    def _features(call: OpCall, queries: Factor | None, keys: Factor | None) -> None:
        """Features of queries and keys are tied; they end here."""
        for factor, other in ((queries, keys), (keys, queries)):
            if factor is not None and other is None:
                call.channels.freeze(factor.ids, f"{call.where} multiplies these channels with an axis of fixed size")
        if queries is None or keys is None:
            return
        rows = queries.ids.ndim - 2
        queries, keys = (call.channels.align(factor, [rows]) for factor in (queries, keys))
        call.channels.tie(queries.ids, keys.ids)
        call.channels.consume(np.broadcast_arrays(queries.ids, keys.ids)[0])
        call.doubt(queries.ids)

    @staticmethod
    def _passed(call: OpCall, labels: Labels, shape: tuple[int, ...], ndim: int) -> tuple[Labels, tuple[int, ...]]:
        """Labels and shape of the leading axes, heads among them."""
        heads = tuple(call.channels.align(factor, [ndim - 2, ndim - 1]) for factor in labels if factor.cut < ndim - 2)
        return heads, (*shape[: ndim - 2], 1, 1)


class NativeAttention(OpRule):
    """The fused kernel of nn.MultiheadAttention: its sizes are arguments of one call."""

    targets = ("_native_multi_head_attention", "_transformer_encoder_layer_fwd")

    def apply(self, call: OpCall) -> Labels:
        return call.give_up(f"{call.where} fuses a whole attention layer")


RULES = (Attention(), NativeAttention())
