"""Concatenation, splitting and picking: the ids are concatenated, split and picked with the tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch.fx import Node

from nasprune.graph.labels import Factor, Labels, along, at, squeezed, unsqueezed, without
from nasprune.graph.ops.elementwise import merged
from nasprune.graph.program import shapes_of
from nasprune.graph.rules import OpCall, OpRule, Result


class Concatenate(OpRule):
    """cat and stack. Along a channel axis ids are joined; along any other axis the channels that line up are tied."""

    targets = ("cat", "concat", "concatenate", "stack")

    def apply(self, call: OpCall) -> Labels:
        nodes = call["tensors"]
        labels, shapes = [call.labels_of(node) for node in nodes], [call.shape_of(node) for node in nodes]
        axis = int(call["dim"]) % len(call.shape)
        if call.name == "stack":
            labels = [unsqueezed(own, axis) for own in labels]
            shapes = [(*shape[:axis], 1, *shape[axis:]) for shape in shapes]
            return merged(call, list(zip(labels, shapes, strict=True)))
        used = [i for i, shape in enumerate(shapes) if shape != (0,)]
        labels, shapes = [labels[i] for i in used], [shapes[i] for i in used]
        labels = [self._off_axis(call, own, axis) for own in labels]
        joined = [at(own, axis) for own in labels]
        others = [(without(own, factor), (*shape[:axis], 1, *shape[axis + 1 :]))
                  for own, factor, shape in zip(labels, joined, shapes, strict=True)]  # fmt: skip
        result = merged(call, others)
        if all(factor is None for factor in joined):
            return result
        ids = [call.channel_ids(own, axis, shape[axis], f"{call.where} joins channels of fixed number")
               for own, shape in zip(labels, shapes, strict=True)]  # fmt: skip
        return (*result, along(np.concatenate(ids), axis, len(call.shape)))

    @staticmethod
    def _off_axis(call: OpCall, labels: Labels, axis: int) -> Labels:
        """No factor but the joined axis' own depends on the joined axis."""
        return tuple(factor if factor.cut == axis else call.channels.align(factor, [axis]) for factor in labels)


def _stretches(
    call: OpCall, labels: Labels, axis: int, sizes: Sequence[int], ndim: int, *, doubt: bool
) -> list[Labels]:
    """Labels of consecutive stretches of `axis`. Those of a channel axis keep equal shares, or stay whole.

    doubt: the code gives their sizes, which it may have fixed.
    """
    bounds = list(pairwise(accumulate(sizes, initial=0)))
    factor = at(labels, axis)
    rest = without(labels, factor)
    passed = [tuple(_picked(other, axis, slice(a, b)) for other in rest) for a, b in bounds]
    if factor is None:
        return passed
    ids = call.channels.plain(factor).flat
    parts = [ids[a:b] for a, b in bounds]
    call.channels.partition(parts, loose=doubt)
    if doubt:
        call.doubt(ids)
    for part in parts:
        if part.size == 1:
            call.channels.freeze(part, f"{call.where} splits off a single channel")
    return [own if part.size == 1 else (*own, along(part, axis, ndim)) for own, part in zip(passed, parts, strict=True)]


def _picked(factor: Factor, axis: int, which: slice) -> Factor:
    if factor.ids.shape[axis] == 1:
        return factor
    index = [slice(None)] * factor.ids.ndim
    index[axis] = which
    return replace(factor, ids=factor.ids[tuple(index)])


class Split(OpRule):
    """chunk and split. `chunk` computes its sizes anew; the sizes of `split` may be fixed in the code."""

    targets = ("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split")

    def apply(self, call: OpCall) -> list[Labels]:
        axis = int(call.get("dim", 0)) % len(call.shape_of(call["self"]))
        parts = shapes_of(call.node)
        sizes = [part[axis] for part in parts]
        labels = call.labels("self")
        factor = at(labels, axis)
        if factor is not None and call.name.endswith("chunk") and len(set(sizes)) > 1:
            call.channels.freeze(factor.ids, f"{call.where} makes unequal parts")
        return _stretches(call, labels, axis, sizes, len(parts[0]), doubt=not call.name.endswith("chunk"))


class Slice(OpRule):
    """x[:, a:b]: the stretches before, inside and after are a partition whose sizes may be fixed in the code."""

    targets = ("slice", "narrow")

    def apply(self, call: OpCall) -> Labels:
        labels, shape = call.labels("self"), call.shape_of(call["self"])
        axis, step = int(call["dim"]) % len(shape), int(call.get("step", 1) or 1)
        if call.name == "narrow":
            start, stop = int(call["start"]), int(call["start"]) + int(call["length"])
        else:
            start, stop, step = slice(call["start"], call["end"], step).indices(shape[axis])
        if (start, stop, step) == (0, shape[axis], 1):
            return labels
        factor = at(labels, axis)
        if factor is not None and step != 1:
            call.channels.freeze(factor.ids, f"{call.where} takes every {step}th channel")
            labels = without(labels, factor)
        if step != 1:
            return tuple(_picked(other, axis, slice(start, stop, step)) for other in labels)
        bounds = sorted({0, start, stop, shape[axis]})
        sizes = [b - a for a, b in pairwise(bounds)]
        return _stretches(call, labels, axis, sizes, len(shape), doubt=True)[bounds.index(start)]


class Select(OpRule):
    """x[:, i]: picks one index; a single channel of a channel axis cannot be told apart, so these are frozen."""

    targets = ("select", "unbind")

    def apply(self, call: OpCall) -> Result:
        labels, shape = call.labels("self"), call.shape_of(call["self"])
        axis = int(call["dim"]) % len(shape)
        factor = at(labels, axis)
        if factor is not None:
            call.channels.freeze(factor.ids, f"{call.where} picks single channels")
            labels = without(labels, factor)
        if call.name == "unbind":
            return [self._take(labels, axis, index) for index in range(shape[axis])]
        return self._take(labels, axis, int(call["index"]) % shape[axis])

    @staticmethod
    def _take(labels: Labels, axis: int, index: int) -> Labels:
        return squeezed(tuple(_picked(factor, axis, slice(index, index + 1)) for factor in labels), axis)


class Index(OpRule):
    """Advanced indexing along one axis: the other axes keep their labels."""

    targets = ("index", "index_select")

    def apply(self, call: OpCall) -> Labels:
        shape = call.shape_of(call["self"])
        if call.name == "index_select":
            return self._picked(call, int(call["dim"]) % len(shape), 1)
        by = [(axis, index) for axis, index in enumerate(call["indices"]) if index is not None]
        if len(by) == 1 and not _is_mask(by[0][1]):
            return self._picked(call, by[0][0], len(call.shape_of(by[0][1])))
        return call.give_up(f"{call.where} picks channels by number")

    @staticmethod
    def _picked(call: OpCall, axis: int, axes: int) -> Labels:
        """Labels once `axes` axes of picked entries stand in the place of `axis`."""
        labels = call.labels("self")
        kept = tuple(factor for factor in labels if factor.cut != axis and factor.ids.shape[axis] == 1)
        call.channels.freeze_all(without(labels, *kept), f"{call.where} picks channels by number")
        return tuple(
            Factor(
                factor.ids.reshape(*factor.ids.shape[:axis], *(1,) * axes, *factor.ids.shape[axis + 1 :]),
                factor.cut + (axes - 1 if factor.cut > axis else 0),
            )
            for factor in kept
        )


def _is_mask(index: Node) -> bool:
    value = index.meta.get("val")
    return value is None or value.dtype in (torch.bool, torch.uint8)


RULES = (Concatenate(), Split(), Slice(), Select(), Index())
