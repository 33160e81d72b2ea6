"""Looking things up: embeddings, and picking by numbers that are computed."""

from __future__ import annotations

from nasprune.graph.labels import Labels, along, at, squeezed, without
from nasprune.graph.rules import OpCall, OpRule, Result


class Embedding(OpRule):
    """The table's last axis makes channels; its rows are looked up by number and stay."""

    targets = ("embedding",)

    def apply(self, call: OpCall) -> Labels:
        table, width = call["weight"], call.shape[-1]
        entries = at(call.labels("weight"), 0)
        if entries is not None:
            call.channels.freeze(entries.ids, f"{call.where} looks up these entries by number")
        ids = call.channel_ids(call.labels("weight"), 1, width, f"{call.where} has a fixed width here")
        call.role(table, 1, "out")
        return (along(ids, len(call.shape) - 1, len(call.shape)),) if width > 1 else ()


class EmbeddingBag(OpRule):
    """An embedding whose entries are summed or averaged for each bag."""

    targets = ("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")

    def apply(self, call: OpCall) -> list[Labels]:
        table = call["weight"]
        entries = at(call.labels("weight"), 0)
        if entries is not None:
            call.channels.freeze(entries.ids, f"{call.where} looks up these entries by number")
        width = call.shape_of(table)[1]
        ids = call.channel_ids(call.labels("weight"), 1, width, f"{call.where} has a fixed width here")
        call.role(table, 1, "out")
        return [(along(ids, 1, 2),) if width > 1 else (), (), (), ()]


class TopK(OpRule):
    """The best k along an axis: which ones depends on the data, so channels end there."""

    targets = ("topk", "kthvalue", "mode")

    def apply(self, call: OpCall) -> list[Labels]:
        labels, ndim = call.labels("self"), len(call.shape_of(call["self"]))
        axis = int(call.get("dim", -1)) % max(ndim, 1)
        factor = at(labels, axis)
        if factor is not None:
            call.channels.freeze(factor.ids, f"{call.where} picks among these channels by their values")
        passed = tuple(call.channels.align(other, [axis]) for other in without(labels, factor))
        if call.name != "topk" and not call.get("keepdim", False):
            passed = squeezed(passed, axis)
        return [passed, passed]


class Gather(OpRule):
    """Picks along one axis by computed numbers; the other axes pass where the index spans them whole."""

    targets = ("gather",)

    def apply(self, call: OpCall) -> Result:
        labels, source, index = call.labels("self"), call.shape_of(call["self"]), call.shape_of(call["index"])
        axis = int(call["dim"]) % max(len(source), 1)
        call.channels.freeze_all(call.labels("index"), f"{call.where} reads numbers from these channels")
        passed = []
        for factor in labels:
            whole = all(index[i] == source[i] for i in (factor.cut, *factor.index_axes) if i != axis)
            if factor.cut == axis or not whole:
                call.channels.freeze(factor.ids, f"{call.where} picks channels by number")
                continue
            call.doubt(factor.ids)
            passed.append(call.channels.align(factor, [axis]))
        return tuple(passed)


RULES = (Embedding(), EmbeddingBag(), TopK(), Gather())
