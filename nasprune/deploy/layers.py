"""Operations of a captured program that torch has a layer for, as the line that makes that layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

Leaves = Mapping[str, tuple[str, Tensor]]
"""Placeholder -> the name of the parameter, buffer or constant that it stands for, and its value."""


@dataclass(frozen=True)
class Layer:
    """A layer. made: the expression that makes it. input: what it is called with. tensors: by their names in it."""

    made: str
    input: Node
    tensors: Mapping[str, tuple[str, Tensor]]


def layer_of(node: Node, leaves: Leaves) -> Layer | None:
    """The layer that does what `node` does; `None` where there is none, or its weights are computed."""
    make = _MAKERS.get(str(node.target))
    if make is None:
        return None
    schema = node.target._schema  # type: ignore[union-attr]
    given = {argument.name: argument.default_value for argument in schema.arguments}
    given.update(zip(given, node.args, strict=False))
    given.update(node.kwargs)
    return make(given, leaves)


def _tensors(given: Mapping[str, Any], leaves: Leaves, *names: str) -> dict[str, tuple[str, Tensor]] | None:
    """The tensors among the arguments called so; `None` where one is no leaf. Absent ones are left out."""
    present = {name: given[name] for name in names if given[name] is not None}
    if not all(isinstance(value, Node) and value.name in leaves for value in present.values()):
        return None
    return {name: leaves[value.name] for name, value in present.items()}


def _made(kind: str, *sizes: object, weight: Tensor, **options: tuple[object, object]) -> str:
    """The constructor's call. options: name -> (value, the constructor's default), which is left out."""
    parts = [repr(size) for size in sizes]
    parts += [f"{name}={value!r}" for name, (value, default) in options.items() if value != default]
    parts += [f"dtype={weight.dtype}"] if weight.dtype != torch.float32 else []
    return f"nn.{kind}({', '.join(parts)})"


def _plain(value: Any) -> object:
    """(3, 3) as 3, other tuples as they are."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values[0] if len(set(values)) == 1 else values


def _convolution(given: Mapping[str, Any], leaves: Leaves, *, transposed: bool = False) -> Layer | None:
    tensors = _tensors(given, leaves, "weight", "bias")
    if tensors is None or "weight" not in tensors:
        return None
    weight, groups = tensors["weight"][1], int(given["groups"])
    outer, inner = int(weight.shape[0]), int(weight.shape[1]) * groups
    sizes = (outer, int(weight.shape[1]) * groups) if transposed else (inner, outer)
    padding = given["padding"]
    return Layer(
        _made(
            f"Conv{'Transpose' if transposed else ''}{weight.ndim - 2}d",
            *sizes,
            _plain(tuple(weight.shape[2:])),
            weight=weight,
            stride=(_plain(given["stride"]), 1),
            padding=(padding if isinstance(padding, str) else _plain(padding), 0),
            **({"output_padding": (_plain(given["output_padding"]), 0)} if transposed else {}),
            dilation=(_plain(given["dilation"]), 1),
            groups=(groups, 1),
            bias=("bias" in tensors, True),
        ),
        given["input"],
        tensors,
    )


def _transposed(given: Mapping[str, Any], leaves: Leaves) -> Layer | None:
    return _convolution(given, leaves, transposed=True)


def _linear(given: Mapping[str, Any], leaves: Leaves) -> Layer | None:
    tensors = _tensors(given, leaves, "weight", "bias")
    if tensors is None or tensors["weight"][1].ndim != 2:
        return None
    weight = tensors["weight"][1]
    made = _made("Linear", weight.shape[1], weight.shape[0], weight=weight, bias=("bias" in tensors, True))
    return Layer(made, given["input"], tensors)


def _batch_norm(given: Mapping[str, Any], leaves: Leaves) -> Layer | None:
    tensors = _tensors(given, leaves, "weight", "bias", "running_mean", "running_var")
    axes = given["input"].meta["val"].ndim if isinstance(given["input"], Node) else 0
    complete = tensors is not None and len(tensors) in (2, 4) and "running_mean" in tensors
    if tensors is None or not complete or given["training"] or not 2 <= axes <= 5:
        return None
    mean = tensors["running_mean"][1]
    made = _made(
        f"BatchNorm{max(axes - 2, 1)}d",
        len(mean),
        weight=mean,
        eps=(given["eps"], 1e-5),
        momentum=(given["momentum"], 0.1),
        affine=("weight" in tensors, True),
    )
    return Layer(made, given["input"], tensors)


def _layer_norm(given: Mapping[str, Any], leaves: Leaves) -> Layer | None:
    tensors = _tensors(given, leaves, "weight", "bias")
    if tensors is None or "weight" not in tensors:
        return None
    weight = tensors["weight"][1]
    shape = tuple(weight.shape)
    size = shape[0] if len(shape) == 1 else shape
    made = _made("LayerNorm", size, weight=weight, eps=(given["eps"], 1e-5), bias=("bias" in tensors, True))
    return Layer(made, given["input"], tensors)


def _group_norm(given: Mapping[str, Any], leaves: Leaves) -> Layer | None:
    tensors = _tensors(given, leaves, "weight", "bias")
    if tensors is None or len(tensors) != 2:
        return None
    weight = tensors["weight"][1]
    made = _made("GroupNorm", given["num_groups"], len(weight), weight=weight, eps=(given["eps"], 1e-5))
    return Layer(made, given["input"], tensors)


def _embedding(given: Mapping[str, Any], leaves: Leaves) -> Layer | None:
    tensors = _tensors(given, leaves, "weight")
    if tensors is None:
        return None
    weight = tensors["weight"][1]
    return Layer(_made("Embedding", weight.shape[0], weight.shape[1], weight=weight), given["indices"], tensors)


_MAKERS: dict[str, Callable[[Mapping[str, Any], Leaves], Layer | None]] = {
    **{f"aten.conv{axes}d.{kind}": _convolution for axes in (1, 2, 3) for kind in ("default", "padding")},
    "aten.conv_transpose1d.default": _transposed,
    "aten.conv_transpose2d.input": _transposed,
    "aten.conv_transpose3d.input": _transposed,
    "aten.linear.default": _linear,
    "aten.batch_norm.default": _batch_norm,
    "aten.layer_norm.default": _layer_norm,
    "aten.group_norm.default": _group_norm,
    "aten.embedding.default": _embedding,
}
