"""Normalisations. Per channel: parameters follow the channels. Across channels: whole groups go, or statistics change.

A norm that mixes the channels it keeps (layer norm, group norm with one group, a batch norm over a weight's inputs) can
be cut, but zeroed channels would still enter its statistics. `verify` therefore compares with the same norm taken over
the kept channels only.
"""

from __future__ import annotations

from torch import nn

from nasprune.graph.labels import Labels, at, without
from nasprune.graph.rules import OpCall, OpRule, axes_of


class PerChannelNorm(OpRule):
    """Batch norm and instance norm: parameters and running statistics follow axis 1."""

    targets = ("batch_norm", "instance_norm", "native_batch_norm", "_native_batch_norm_legit_no_training")

    def apply(self, call: OpCall) -> Labels:
        labels, size = call.labels("input"), call.shape_of(call["input"])[1]
        ids = call.channel_ids(labels, 1, size, f"{call.where} normalises channels of fixed number")
        for name in ("weight", "bias", "running_mean", "running_var"):
            call.tie_vector(name, ids)
        rest = without(labels, at(labels, 1))
        if call.name == "instance_norm":
            call.channels.freeze_all(rest, f"{call.where} normalises across these channels")
        ndim = len(call.shape_of(call["input"]))
        return (*rest, *call.only(tuple(f for f in labels if f.cut == 1), 1, ndim, ids))


class LayerNorm(OpRule):
    """Layer norm and RMS norm over the last axes."""

    targets = ("layer_norm", "rms_norm")

    def apply(self, call: OpCall) -> Labels:
        labels, shape = call.labels("input"), call.shape_of(call["input"])
        first = len(shape) - len(call["normalized_shape"])
        passed = []
        for factor in labels:
            if factor.cut < first:
                passed.append(call.channels.align(factor, [axis for axis in factor.index_axes if axis >= first]))
                continue
            factor = call.channels.plain(factor)
            passed.append(factor)
            for name in ("weight", "bias"):
                call.tie_vector(name, factor.flat, factor.cut - first)
            if not call.owned_by(nn.LayerNorm, nn.RMSNorm):
                call.doubt(factor.ids)
        for axis in range(first, len(shape)):
            if at(labels, axis) is None:
                for name in ("weight", "bias"):
                    own = at(call.labels(name), axis - first)
                    if own is not None:
                        call.channels.freeze(own.ids, f"{call.where} normalises an axis of fixed size")
        return tuple(passed)


class GroupNorm(OpRule):
    """Whole groups of channels go, which is exact; with one group the statistics are those of the kept channels."""

    targets = ("group_norm",)

    def apply(self, call: OpCall) -> Labels:
        labels, shape, groups = call.labels("input"), call.shape_of(call["input"]), int(call["num_groups"])
        ids = call.channel_ids(labels, 1, shape[1], f"{call.where} normalises channels of fixed number")
        for name in ("weight", "bias"):
            call.tie_vector(name, ids)
        if groups > 1:
            rows = ids.reshape(groups, -1)
            call.channels.tie(rows[:, :1], rows)
        if not call.owned_by(nn.GroupNorm):
            call.doubt(ids)
        return call.only(labels, 1, len(shape), ids)


class WeightNorm(OpRule):
    """A weight given as direction and length, one length for each index of `dim`.

    Lengths are measured over all inputs of the dense weight: `build` shortens them to the inputs that stay.
    """

    targets = ("_weight_norm", "_weight_norm_interface")

    def apply(self, call: OpCall) -> Labels | list[Labels]:
        labels, dim = call.labels("v"), int(call.get("dim", 0))
        ndim = len(call.shape_of(call["v"]))
        along_dim = at(labels, dim % ndim) if dim != -1 else None
        if along_dim is not None:
            call.tie_vector("g", call.channels.plain(along_dim).flat, dim % ndim)
        if not (call.is_parameter(call["v"]) and call.is_parameter(call["g"])):
            across = without(labels, along_dim)
            call.channels.freeze_all(across, f"{call.where} measures the length of a computed weight")
        return [labels, call.labels("g")] if call.name.endswith("interface") else labels


TRIANGLES = ("tril", "triu")


class ChannelMixing(OpRule):
    """Softmax, cumulative sums, sorting, Fourier transforms and the like: an axis they run along keeps its size."""

    targets = (
        "softmax", "_softmax", "log_softmax", "softmin", "cumsum", "cumprod", "logcumsumexp", "sort", "argsort", "flip",
        "roll", "fft_fft", "fft_ifft", "fft_fft2", "fft_ifft2", "fft_fftn", "fft_ifftn", "fft_rfft", "fft_irfft",
        "fft_rfft2", "fft_irfft2", "fft_rfftn", "fft_irfftn", "fft_hfft", "fft_ihfft", "fft_fftshift",
        "fft_ifftshift", *TRIANGLES,
    )  # fmt: skip

    def apply(self, call: OpCall) -> Labels | list[Labels]:
        source = call.get("self", call.get("input"))
        labels, ndim = call.labels_of(source), len(call.shape_of(source))
        dims = [-2, -1] if call.name in TRIANGLES else call.get("dims", call.get("dim", -1))
        kept = list(labels)
        axes = axes_of(dims if dims not in (None, []) else list(range(ndim)), ndim)
        for axis in axes:
            for i, factor in enumerate(kept):
                if factor.cut == axis:
                    call.channels.freeze(factor.ids, f"{call.where} runs across these channels")
                kept[i] = call.channels.align(factor, [axis] if axis in factor.index_axes else [])
        ends = axes if call.name.startswith("fft_") else []  # half of a spectrum is an axis of another size
        result = tuple(factor for factor in kept if factor.cut < ndim and factor.cut not in ends)
        return [result, result] if call.name == "sort" else result


RULES = (PerChannelNorm(), LayerNorm(), GroupNorm(), WeightNorm(), ChannelMixing())
