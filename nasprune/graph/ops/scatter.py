"""Rows written or added at computed places, as graph networks do: channels on the other axes pass."""

from __future__ import annotations

from torch.fx import Node

from nasprune.graph.labels import Labels, at, without
from nasprune.graph.ops.elementwise import Maker, merged
from nasprune.graph.program import operator
from nasprune.graph.rules import OpCall, OpRule

WRITTEN = ("source", "src", "value")


class Scatter(OpRule):
    """What is written and what it is written to have the same channels, on all axes but the one of the places."""

    targets = (
        "index_add", "index_copy", "index_fill", "index_reduce", "scatter", "scatter_add", "scatter_reduce",
    )  # fmt: skip

    def apply(self, call: OpCall) -> Labels:
        shape = call.shape
        axis = int(call["dim"]) % max(len(shape), 1)
        operands = [
            call["self"],
            *(call.get(name) for name in WRITTEN if len(call.shape_of(call.get(name))) == len(shape)),
        ]
        places = call["index"]
        if call.name.startswith("scatter"):
            operands.append(places)
            reached = call.shape_of(places)
            if any(reached[other] != size for other, size in enumerate(shape) if other != axis):
                return call.give_up(f"{call.where} writes to a part of these channels")
        given = [(self._off_axis(call, call.labels_of(node), axis), call.shape_of(node)) for node in operands]
        known = [
            (labels, (*own[:axis], 1, *own[axis + 1 :]))
            for node, (labels, own) in zip(operands, given, strict=True)
            if labels or not (node is places or _made(node))
        ]
        result = merged(call, known) if known else ()
        if len(known) < len(operands):
            for factor in result:
                call.doubt(factor.ids)  # the code gave the other tensor's size, which it may have read from this one
        return result

    @staticmethod
    def _off_axis(call: OpCall, labels: Labels, axis: int) -> Labels:
        factor = at(labels, axis)
        if factor is not None:
            call.channels.freeze(factor.ids, f"{call.where} picks among these channels by number")
        return tuple(call.channels.align(other, [axis]) for other in without(labels, factor))


def _made(node: Node) -> bool:
    """Whether a tensor is one that the code makes of a size, such as zeros."""
    return operator(node) in Maker.targets


RULES = (Scatter(),)
