"""Reshapes and permutations: the ids are reshaped and permuted with the tensor."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from nasprune.graph.labels import Factor, Labels, at, extended, permuted, squeezed, unsqueezed
from nasprune.graph.ops.elementwise import Broadcast
from nasprune.graph.program import operator
from nasprune.graph.rules import OpCall, OpRule


class Reshape(OpRule):
    """view, reshape, flatten, unflatten.

    Merging axes repeats ids. Splitting a channel axis makes a partition: the part that is -1 in the call, else the
    last, gets shorter, equally for every index of the others. Sizes written as numbers may have been computed or
    fixed: doubt.
    """

    targets = ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as")

    def apply(self, call: OpCall) -> Labels:
        labels, source = call.labels("self"), call.shape_of(call["self"])
        if not labels:
            return ()
        if "dtype" in call.args:
            return call.give_up()
        written = call.get("size", call.get("shape"))
        if call.name == "unflatten":
            axis = int(call["dim"]) % len(source)
            written = [*source[:axis], *call["sizes"], *source[axis + 1 :]]
            literal = {axis + i for i, size in enumerate(call["sizes"]) if size != -1}
        else:
            literal = {i for i, size in enumerate(written or ()) if size != -1}
        free = next((i for i, size in enumerate(written or ()) if size == -1), None)
        return reshaped(call, labels, source, call.shape, literal, free)


def blocks(source: Sequence[int], target: Sequence[int]) -> list[tuple[range, range]]:
    """Smallest stretches of axes with equal products on both sides, in order; all axes are covered."""
    found, i, j = [], 0, 0
    while i < len(source) or j < len(target):
        i0, j0 = i, j
        i, j = min(i + 1, len(source)), min(j + 1, len(target))
        while prod(source[i0:i]) != prod(target[j0:j]):
            if prod(source[i0:i]) < prod(target[j0:j]):
                i += 1
            else:
                j += 1
        while i < len(source) and source[i] == 1 and (j >= len(target) or target[j] != 1):
            i += 1
        while j < len(target) and target[j] == 1 and (i >= len(source) or source[i] != 1):
            j += 1
        found.append((range(i0, i), range(j0, j)))
    return found


def reshaped(
    call: OpCall,
    labels: Labels,
    source: tuple[int, ...],
    target: tuple[int, ...],
    literal: set[int],
    free: int | None,
) -> Labels:
    """Labels after a reshape. literal: target axes whose size is a number in the call. free: the axis given as -1."""
    pairs = blocks(source, target)
    moved = [(factor, _move(call, factor, source, target, pairs, free)) for factor in labels]
    result: list[Factor] = []
    for old, new in sorted(moved, key=lambda pair: -pair[0].ids.size):
        taken = {axis for other in result for axis, size in enumerate(other.ids.shape) if size > 1}
        if new is None or any(size > 1 and axis in taken for axis, size in enumerate(new.ids.shape)):
            call.channels.freeze(old.ids, f"{call.where} joins these channels with other axes")
            continue
        if new.cut in literal:
            call.doubt(new.ids)
        result.append(new)
    return tuple(result)


def _move(
    call: OpCall,
    factor: Factor,
    source: tuple[int, ...],
    target: tuple[int, ...],
    pairs: list[tuple[range, range]],
    free: int | None,
) -> Factor | None:
    inside, outside = next(pair for pair in pairs if factor.cut in pair[0])
    factor = call.channels.align(factor, [axis for axis in factor.index_axes if axis in inside and axis > factor.cut])
    full = [
        size if any(axis in old and any(factor.ids.shape[a] > 1 for a in old) for old, _ in pairs) else 1
        for axis, size in enumerate(source)
    ]
    shape = [1] * len(target)
    for old, new in pairs:
        if any(full[axis] > 1 for axis in old):
            shape[new.start : new.stop] = target[new.start : new.stop]
    ids = np.broadcast_to(factor.ids, full).reshape(shape)
    for axis in range(ids.ndim):
        first = ids.take([0], axis)
        if ids.shape[axis] > 1 and (ids == first).all():
            ids = first
    varying = [axis for axis in outside if ids.shape[axis] > 1]
    if not varying:
        return None
    if len(varying) == 1:
        return Factor(ids, varying[0])
    cut = _chosen(call, varying, outside, free)
    split = call.channels.align(Factor(ids, cut), [axis for axis in varying if axis > cut])
    if any(split.ids.shape[axis] > 1 for axis in varying if axis < cut):
        rows = np.moveaxis(split.ids, cut, -1).reshape(-1, split.ids.shape[cut])
        call.channels.partition(list(rows))
        call.doubt(split.ids)
    return split


def _chosen(call: OpCall, varying: Sequence[int], outside: range, free: int | None) -> int:
    """The axis of a split that gets shorter: that of a hint, else the one that the call leaves open, else the last."""
    if call.node.name in call.splits:
        hinted = outside[max(call.splits[call.node.name], -len(outside))]
        return hinted if hinted in varying else varying[-1]
    return free if free is not None and free in varying else varying[-1]


class Permute(OpRule):
    """permute, transpose, movedim and friends."""

    targets = ("permute", "transpose", "t", "swapaxes", "swapdims", "movedim", "moveaxis", "numpy_T", "mT", "adjoint")

    def apply(self, call: OpCall) -> Labels:
        labels, ndim = call.labels("self"), len(call.shape)
        return permuted(labels, self._order(call, ndim)) if ndim > 1 else labels

    @staticmethod
    def _order(call: OpCall, ndim: int) -> list[int]:
        order = list(range(ndim))
        if call.name == "permute":
            return [axis % ndim for axis in call["dims"]]
        if call.name in ("movedim", "moveaxis"):
            return _moved(ndim, call["source"], call["destination"])
        if call.name == "numpy_T":
            return order[::-1]
        names = {"transpose": ("dim0", "dim1"), "swapaxes": ("axis0", "axis1"), "swapdims": ("dim0", "dim1")}
        first, second = (int(call[name]) % ndim for name in names[call.name]) if call.name in names else (-2, -1)
        order[first], order[second] = order[second], order[first]
        return order


def _moved(ndim: int, source: Sequence[int] | int, destination: Sequence[int] | int) -> list[int]:
    """The permutation that moves axes: found on a tensor whose axes all have different sizes."""
    marked = np.moveaxis(np.broadcast_to(0, tuple(range(2, ndim + 2))), source, destination)
    return [size - 2 for size in marked.shape]


class Unsqueeze(OpRule):
    targets = ("unsqueeze",)

    def apply(self, call: OpCall) -> Labels:
        return unsqueezed(call.labels("self"), int(call["dim"]) % len(call.shape))


class Squeeze(OpRule):
    targets = ("squeeze",)

    def apply(self, call: OpCall) -> Labels:
        labels, shape = call.labels("self"), call.shape_of(call["self"])
        dims = call.get("dim", list(range(len(shape))))
        for axis in sorted(
            {int(dim) % len(shape) for dim in ([dims] if isinstance(dims, int) else dims)}, reverse=True
        ):
            if shape[axis] == 1:
                labels = squeezed(labels, axis)
        return labels


class Expand(OpRule):
    """Axes of size 1 grow to a fixed size, or to that of the channels that the result is combined with.

    A channel axis given by number may be fixed in the code.
    """

    targets = ("expand", "expand_as", "broadcast_to")

    def apply(self, call: OpCall) -> Labels:
        shape = call.shape
        labels = extended(call.labels("self"), len(shape))
        sizes = call.get("size", [-1] * len(shape))
        for factor in labels:
            if sizes[factor.cut] != -1:
                call.doubt(factor.ids)
        source = extended_shape(call.shape_of(call["self"]), len(shape))
        grown = [axis for axis, size in enumerate(source) if size == 1 < shape[axis]]
        met = (_met_later(call, axis) for axis in grown)
        return (*labels, *(factor for factor in met if factor is not None))


def extended_shape(shape: Sequence[int], ndim: int) -> tuple[int, ...]:
    """The shape with axes of size 1 added in front."""
    return (1,) * (ndim - len(shape)) + tuple(shape)


def _met_later(call: OpCall, axis: int) -> Factor | None:
    """The channels of a tensor of the same shape that the result is combined with: as many as it has to have."""
    for user in call.node.users:
        for other in user.all_input_nodes if operator(user) in Broadcast.targets else ():
            factor = at(call.labels_of(other), axis) if call.shape_of(other) == call.shape else None
            if factor is not None and other is not call.node:
                call.doubt(factor.ids)
                return call.channels.plain(factor)
    return None


class ComplexView(OpRule):
    """Pairs of numbers on a last axis seen as complex numbers, and the other way."""

    targets = ("view_as_complex", "view_as_real")

    def apply(self, call: OpCall) -> Labels:
        labels, ndim = call.labels("self"), len(call.shape_of(call["self"]))
        if call.name == "view_as_real":
            return unsqueezed(labels, ndim)
        pairs = at(labels, ndim - 1)
        if pairs is not None:
            call.channels.freeze(pairs.ids, f"{call.where} makes one complex number of two channels")
        rest = (factor for factor in labels if factor is not pairs)
        return squeezed(tuple(call.channels.align(factor, [ndim - 1]) for factor in rest), ndim - 1)


class Repeat(OpRule):
    """Copies along axes: each copy of a channel belongs to it."""

    targets = ("repeat", "tile")

    def apply(self, call: OpCall) -> Labels:
        shape = call.shape
        times = [1] * (len(shape) - len(call.get("repeats", call.get("dims")))) + list(
            call.get("repeats", call.get("dims"))
        )
        return tuple(
            Factor(np.tile(factor.ids, [n if factor.ids.shape[a] > 1 else 1 for a, n in enumerate(times)]), factor.cut)
            for factor in extended(call.labels("self"), len(shape))
        )


class RepeatInterleave(OpRule):
    """Each index several times in a row."""

    targets = ("repeat_interleave",)

    def apply(self, call: OpCall) -> Labels:
        repeats, dim = call.get("repeats"), call.get("dim")
        if not isinstance(repeats, int) or dim is None:
            return call.give_up(f"{call.where} repeats by computed numbers")
        axis = int(dim) % len(call.shape)
        return tuple(
            Factor(factor.ids.repeat(repeats, axis) if factor.ids.shape[axis] > 1 else factor.ids, factor.cut)
            for factor in call.labels("self")
        )


RULES = (Reshape(), Permute(), Unsqueeze(), Squeeze(), Expand(), ComplexView(), Repeat(), RepeatInterleave())
