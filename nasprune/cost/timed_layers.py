"""What decides the time of a convolution or linear layer alone, at any of its widths, and that of any other call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from nasprune.graph.program import arguments, operator, shape_of

LAYERS = ("conv1d", "conv2d", "conv3d", "linear")


@dataclass(frozen=True)
class Sized:
    """A layer of certain widths: the shapes of what it reads and of its weight, and its settings."""

    operator: str
    shape: tuple[int, ...]
    weight: tuple[int, ...]
    bias: bool
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Layer:
    """What decides the time of a layer alone: its operator, shapes at batch `batch`, and settings."""

    operator: str
    shape: tuple[int, ...]
    weight: tuple[int, ...]
    bias: bool
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    dtype: str = "float32"

    @property
    def key(self) -> str:
        return repr(self)

    def at(self, read: float, made: float) -> Sized:
        """The layer at shares of its widths. A depthwise convolution reads as much as it makes."""
        axis = len(self.shape) - 1 if self.operator == "linear" else 1
        depthwise = 1 < self.groups == self.shape[axis]
        groups = _share(self.groups, made) if depthwise else self.groups
        reads = groups if depthwise else groups * _share(self.shape[axis] // groups, read)
        makes = groups * _share(self.weight[0] // self.groups, 1.0 if depthwise else made)
        return Sized(
            self.operator,
            (*self.shape[:axis], reads, *self.shape[axis + 1 :]),
            (makes, reads // groups, *self.weight[2:]),
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            groups,
            getattr(torch, self.dtype),
        )


def layer_of(node: Node, batch: int) -> Layer | None:
    """The layer that a call of a program is, or `None`: tensors must be whole, weights parameters of fixed size."""
    name = operator(node)
    if node.op != "call_function" or name not in LAYERS:
        return None
    given = arguments(node)
    source, weight = (given[key] if isinstance(given[key], Node) else None for key in ("input", "weight"))
    shape, size = (shape_of(one) if one is not None else None for one in (source, weight))
    if source is None or not shape or not size or len(shape) < 2:
        return None
    settings: dict[str, object] = {}
    if name != "linear":
        spatial = len(size) - 2
        if len(shape) != len(size):
            return None
        settings = {key: _each(given[key], spatial) for key in ("stride", "dilation", "padding")}
        settings["groups"] = int(given["groups"])
    kind = _type(source.meta["val"])
    return Layer(
        name,
        (shape[0] * batch, *shape[1:]),
        tuple(size),
        given.get("bias") is not None,
        dtype=kind,
        **settings,  # type: ignore[arg-type]
    )


def call_key(node: Node) -> str:
    """What decides the time of a call: its operator and arguments, of tensors the type and the shape.

    >>> import nasprune
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU())
    >>> program = nasprune.trace(net, torch.zeros(1, 1, 8, 8)).program
    >>> call_key(program.live[-2])
    'aten.relu.default(float32 (1, 2, 6, 6))'
    """
    given = [*map(_sort, node.args), *(f"{name}={_sort(value)}" for name, value in node.kwargs.items())]
    return f"{node.target}({', '.join(given)})"


def _sort(argument: Any) -> str:
    """An argument of a call in words."""
    if isinstance(argument, list | tuple):
        return f"[{', '.join(map(_sort, argument))}]"
    value = argument.meta.get("val") if isinstance(argument, Node) else argument
    if isinstance(argument, Node) and isinstance(value, list | tuple):
        return _sort(value)
    return f"{_type(value)} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else str(value)


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _share(whole: int, share: float) -> int:
    return max(1, round(whole * share))


def _each(value: object, spatial: int) -> tuple[int, ...] | str:
    if isinstance(value, str):
        return value
    sizes = [int(size) for size in value] if isinstance(value, list | tuple) else [int(str(value))]
    return tuple(sizes * spatial if len(sizes) == 1 else sizes)
