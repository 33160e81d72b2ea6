"""Convolutions and linear layers: where channels are made and consumed."""

from __future__ import annotations

from torch import nn

from nasprune.graph.labels import Ints, Labels, along, at, without
from nasprune.graph.rules import OpCall, OpRule


class Convolution(OpRule):
    """Input ids = ids of the weight's input axis; the output axis has its own.

    Grouped: every group of channels keeps equally many, each its own choice. Depthwise: output id = input id.
    Deformable: channels that share their offsets are such groups, too; offsets and masks keep their number.
    """

    targets = (
        "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution",
        "deform_conv2d",
    )  # fmt: skip

    def apply(self, call: OpCall) -> Labels:
        transposed = call.name.startswith("conv_transpose") or bool(call.get("transposed"))
        weight, groups = call["weight"], int(call["groups"])
        w_shape, w_labels, ndim = call.shape_of(weight), call.labels("weight"), len(call.shape)
        channel = ndim - (len(w_shape) - 2) - 1
        c_in = call.shape_of(call["input"])[channel]
        in_axis, out_axis = (0, 1) if transposed else (1, 0)
        call.channels.freeze_all(
            (factor for factor in w_labels if factor.cut > 1), f"{call.where}: a kernel axis has a fixed size"
        )
        inputs = call.channel_ids(call.labels("input"), channel, c_in, f"{call.where} reads channels of fixed number")
        if call.name == "deform_conv2d":
            for name in ("offset", "mask"):
                call.channels.freeze_all(call.labels(name), f"{call.where} reads where to look from these channels")
            if int(call["offset_groups"]) > 1:
                call.channels.partition(list(inputs.reshape(int(call["offset_groups"]), -1)))
        call.role(weight, in_axis, "in")
        call.role(weight, out_axis, "out")
        if groups == 1:
            outputs = _dense(call, w_labels, in_axis, out_axis, inputs, call.shape[channel])
        elif c_in == groups:
            outputs = _depthwise(call, w_labels, transposed, inputs, call.shape[channel])
        else:
            outputs = _grouped(call, w_labels, transposed, inputs, groups, call.shape[channel])
        call.tie_vector("bias", outputs)
        return call.only(call.labels("input"), channel, ndim, outputs)


def _ids(call: OpCall, labels: Labels, axis: int, size: int) -> Ints:
    return call.channel_ids(labels, axis, size, f"{call.where} has a fixed width here")


def _dense(call: OpCall, labels: Labels, in_axis: int, out_axis: int, inputs: Ints, c_out: int) -> Ints:
    call.channels.tie(_ids(call, labels, in_axis, inputs.size), inputs)
    return _ids(call, labels, out_axis, c_out)


def _depthwise(call: OpCall, labels: Labels, transposed: bool, inputs: Ints, c_out: int) -> Ints:
    outputs = inputs.repeat(c_out // inputs.size)
    if transposed:
        call.channels.tie(_ids(call, labels, 0, inputs.size), inputs)
        call.channels.freeze_all(labels[1:], f"{call.where}: the depth multiplier is fixed")
    else:
        call.channels.tie(_ids(call, labels, 0, c_out), outputs)
    call.role(call["weight"], 0, "scale")
    if not call.owned_by(nn.modules.conv._ConvNd):
        call.doubt(inputs)
    return outputs


def _grouped(call: OpCall, labels: Labels, transposed: bool, inputs: Ints, groups: int, c_out: int) -> Ints:
    """Both sides are split into `groups` parts; the weight's axis 1 holds the part's own channels."""
    weight, side = call["weight"], inputs if not transposed else call.channels.new(c_out)
    rows = side.reshape(groups, -1)
    outer = _ids(call, labels, 0, call.shape_of(weight)[0])
    inner = at(labels, 1)
    if rows.shape[1] > 1 and not call.override(weight, 1, rows) and inner is not None:
        call.channels.tie(rows, call.channels.plain(inner).flat)
    if transposed:
        call.channels.tie(outer, inputs)
    outputs = side if transposed else outer
    call.channels.partition(list(inputs.reshape(groups, -1)))
    call.channels.partition(list(outputs.reshape(groups, -1)))
    return outputs


class Linear(OpRule):
    """The last axis is the channel axis; factors on other axes pass."""

    targets = ("linear",)

    def apply(self, call: OpCall) -> Labels:
        weight, labels = call["weight"], call.labels("input")
        last = len(call.shape_of(call["input"])) - 1
        out_features, in_features = call.shape_of(weight)
        inputs = call.channel_ids(labels, last, in_features, f"{call.where} reads features of fixed number")
        call.channels.tie(_ids(call, call.labels("weight"), 1, in_features), inputs)
        outputs = _ids(call, call.labels("weight"), 0, out_features)
        call.role(weight, 0, "out")
        call.role(weight, 1, "in")
        call.tie_vector("bias", outputs)
        rest = without(labels, at(labels, last))
        return (*rest, along(outputs, last, last + 1)) if out_features > 1 else rest


RULES = (Convolution(), Linear())
