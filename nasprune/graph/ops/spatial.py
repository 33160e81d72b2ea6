"""Pooling, interpolation, padding and pixel shuffles."""

from __future__ import annotations

import numpy as np

from nasprune.graph.labels import Factor, Labels, along, at, without
from nasprune.graph.ops.elementwise import merged
from nasprune.graph.rules import OpCall, OpRule


class Window(OpRule):
    """Pooling and interpolation over the trailing axes: channels in front pass, labels on trailing axes are frozen."""

    targets = (
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
        "adaptive_max_pool2d", "adaptive_max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d",
        "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices", "upsample_bicubic2d",
        "upsample_bilinear2d", "upsample_linear1d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
        "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa", "_upsample_nearest_exact2d", "upsample_trilinear3d",
        "im2col",
    )  # fmt: skip

    def apply(self, call: OpCall) -> Labels | list[Labels]:
        source = call.get("self", call.get("input"))
        if call.name == "im2col":
            return call.give_up(f"{call.where} unfolds channels")
        labels, ndim = call.labels_of(source), len(call.shape_of(source))
        trailing = next((int(digit) for digit in reversed(call.name) if digit in "123"), 2)
        trailing = 2 if call.name.endswith("2d_aa") or "2d" in call.name else trailing
        passed = []
        for factor in labels:
            if factor.cut >= ndim - trailing:
                call.channels.freeze(factor.ids, f"{call.where} works across these channels")
            else:
                passed.append(call.channels.align(factor, [a for a in factor.index_axes if a >= ndim - trailing]))
        pair = isinstance(call.node.meta.get("val"), list | tuple)
        return [tuple(passed), tuple(passed)] if pair else tuple(passed)


class Unpool(OpRule):
    """Puts maxima back where they were found: channels in front pass, and are those of the places too."""

    targets = ("max_unpool2d", "max_unpool3d")

    def apply(self, call: OpCall) -> Labels:
        ndim = len(call.shape)
        first = ndim - int(call.name[-2])
        given = []
        for name in ("self", "indices"):
            labels = call.labels(name)
            trailing = tuple(factor for factor in labels if factor.cut >= first)
            call.channels.freeze_all(trailing, f"{call.where} works across these channels")
            aligned = (call.channels.align(factor, range(first, ndim)) for factor in without(labels, *trailing))
            given.append((tuple(aligned), (*call.shape_of(call[name])[:first], *(1,) * (ndim - first))))
        return merged(call, given)


class GridSample(OpRule):
    """Samples at given places: channels pass, those of the grid are frozen."""

    targets = ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")

    def apply(self, call: OpCall) -> Labels:
        call.channels.freeze_all(call.labels("grid"), f"{call.where} reads coordinates")
        labels, shape = call.labels("input"), call.shape_of(call["input"])
        ids = call.channel_ids(labels, 1, shape[1], f"{call.where} samples channels of fixed number")
        return call.only(labels, 1, len(shape), ids)


class Pad(OpRule):
    """Constant padding of a channel axis adds channels that stay; other padding must leave channel axes alone."""

    targets = (
        "constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
        "replication_pad2d", "replication_pad3d",
    )  # fmt: skip

    def apply(self, call: OpCall) -> Labels:
        labels, ndim, pads = call.labels("self"), len(call.shape), call.get("pad", call.get("padding"))
        constant = call.name == "constant_pad_nd" or (call.name == "pad" and call.get("mode", "constant") == "constant")
        for i in range(len(pads) // 2):
            axis, before, after = ndim - 1 - i, int(pads[2 * i]), int(pads[2 * i + 1])
            factor = at(labels, axis)
            labels = tuple(
                call.channels.align(f, [axis] if f.cut != axis and axis in f.index_axes else []) for f in labels
            )
            if factor is None or (before == after == 0):
                continue
            if not constant or min(before, after) < 0:
                call.channels.freeze(factor.ids, f"{call.where} pads or crops these channels")
                labels = without(labels, at(labels, axis))
                continue
            ids = call.channels.plain(factor).flat
            ends = call.channels.new(before), call.channels.new(after)
            for end in ends:
                call.channels.freeze(end, f"{call.where} pads with this many channels")
            call.doubt(ids)
            padded = along(np.concatenate([ends[0], ids, ends[1]]), axis, ndim)
            labels = (*without(labels, at(labels, axis)), padded)
        return labels


class PixelShuffle(OpRule):
    """r x r channels become one with r x r as many places; they go together."""

    targets = ("pixel_shuffle",)

    def apply(self, call: OpCall) -> Labels:
        labels, ndim = call.labels("self"), len(call.shape)
        r2 = int(call["upscale_factor"]) ** 2
        factor = at(labels, ndim - 3)
        call.channels.freeze_all(without(labels, factor), f"{call.where} works across these channels")
        if factor is None:
            return ()
        rows = call.channels.plain(factor).flat.reshape(-1, r2)
        call.channels.tie(rows[:, :1], rows)
        return (along(rows[:, 0], ndim - 3, ndim),) if len(rows) > 1 else call.give_up()


class PixelUnshuffle(OpRule):
    """Each channel becomes r x r channels."""

    targets = ("pixel_unshuffle",)

    def apply(self, call: OpCall) -> Labels:
        labels, ndim = call.labels("self"), len(call.shape)
        factor = at(labels, ndim - 3)
        call.channels.freeze_all(without(labels, factor), f"{call.where} works across these channels")
        if factor is None:
            return ()
        ids = call.channels.plain(factor).flat.repeat(int(call["downscale_factor"]) ** 2)
        return (along(ids, ndim - 3, ndim),)


class ChannelShuffle(OpRule):
    """Interleaves `groups` stretches of axis 1: the channels that change places together go together."""

    targets = ("channel_shuffle", "native_channel_shuffle")

    def apply(self, call: OpCall) -> Labels:
        labels, shape = call.labels("self"), call.shape
        factor = at(labels, 1)
        if factor is None:
            return labels
        rows = call.channels.plain(factor).flat.reshape(int(call["groups"]), -1)
        call.channels.tie(rows[:1], rows)
        shuffled: Factor = along(rows.T.reshape(-1), 1, len(shape))
        return (*without(labels, factor), shuffled)


RULES = (Window(), Unpool(), GridSample(), Pad(), PixelShuffle(), PixelUnshuffle(), ChannelShuffle())
