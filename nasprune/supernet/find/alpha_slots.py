"""Where a net holds its architecture weights: parameters, buffers, plain attributes, and rows or columns of these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.common.states import state_tensors

Key = str | int | None
Part = int | tuple[int, int, int]
"""An index, or the start, stop and step of a slice."""


@dataclass(frozen=True)
class Slot:
    """A tensor, or a part of one, in the module at path `owner`.

    name: of the attribute. key: in the list or dict that the attribute is; `None` where it is the tensor itself.
    row: index of the part, one number or slice an axis: (i,) or (i, j) is a row, ((0, n, 1), j) a column, ((i, j, 1),)
    a piece of a flat tensor; empty is the whole tensor. `read` finds it in any copy of the net.
    """

    owner: str
    name: str
    key: Key
    row: tuple[Part, ...]

    def tensor(self, net: nn.Module) -> Tensor:
        """The whole tensor, as `net` holds it."""
        held: Any = getattr(net.get_submodule(self.owner), self.name)
        found: Tensor = held if self.key is None else held[self.key]
        return found

    def read(self, net: nn.Module) -> Tensor:
        """A view: the part, or the whole tensor."""
        return _part(self.tensor(net), self.row)


def find_slot(net: nn.Module, tensor: Tensor) -> Slot | None:
    """Where `net` holds `tensor`, which may be a row, a column or a piece of what it holds; `None` if it was computed.

    The first place is taken where several names hold the same tensor; parameters come before other attributes.
    """
    return next(
        (
            Slot(owner, name, key, row)
            for owner, name, key, held in _held(net)
            if (row := _row(held, tensor)) is not None
        ),
        None,
    )


def plain_tensors(net: nn.Module) -> dict[str, Tensor]:
    """Tensors that require gradients but are no parameters: a `state_dict` lacks them. Path of attribute -> tensor."""
    known = {value.data_ptr() for value in state_tensors(net).values()}
    found: dict[str, Tensor] = {}
    for owner, name, key, held in _held(net):
        if held.requires_grad and held.is_leaf and held.data_ptr() not in known:
            known.add(held.data_ptr())
            found[".".join(part for part in (owner, name, "" if key is None else str(key)) if part)] = held
    return found


def _part(held: Tensor, row: tuple[Part, ...]) -> Tensor:
    return held[tuple(slice(*part) if isinstance(part, tuple) else part for part in row)] if row else held


def _row(held: Tensor, tensor: Tensor) -> tuple[Part, ...] | None:
    """Which part of `held` is `tensor`: () is all of it."""
    if held.layout != torch.strided or held.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr():
        return None
    if not tensor.numel() or held.dtype != tensor.dtype or held.ndim < tensor.ndim:
        return None
    first = _position(held, int(tensor.storage_offset() - held.storage_offset()))
    if first is None:
        return None
    parts: list[tuple[Part, ...]] = [first[: held.ndim - tensor.ndim]]
    if tensor.ndim == 1:
        parts += [(*first[:axis], _slice(held, tensor, axis, first), *first[axis + 1 :]) for axis in range(held.ndim)]
    return next((part for part in parts if _same(_part(held, part), tensor)), None)


def _position(held: Tensor, left: int) -> tuple[int, ...] | None:
    """The index of the number so many places after the first; `None` where `held` does not have it."""
    index = [0] * held.ndim
    for axis in sorted(range(held.ndim), key=held.stride, reverse=True):
        if held.stride(axis):
            index[axis], left = divmod(left, held.stride(axis))
    inside = all(0 <= number < size for number, size in zip(index, held.shape, strict=True))
    return tuple(index) if inside and left == 0 else None


def _slice(held: Tensor, tensor: Tensor, axis: int, first: tuple[int, ...]) -> tuple[int, int, int]:
    """The numbers along one axis that `tensor` may be."""
    step = max(1, tensor.stride(0) // max(1, held.stride(axis)))
    return first[axis], first[axis] + step * (len(tensor) - 1) + 1, step


def _same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()


def _held(net: nn.Module) -> Iterator[tuple[str, str, Key, Tensor]]:
    """Owner, attribute, key and tensor, of all tensors that modules hold: parameters, buffers, then attributes."""
    modules = list(net.named_modules())
    for owner, module in modules:
        for name, value in (*module._parameters.items(), *module._buffers.items()):
            if value is not None:
                yield owner, name, None, value
    for owner, module in modules:
        for name, value in vars(module).items():
            if not name.startswith("_") or isinstance(value, Tensor | list | tuple):
                for key, item in held_in(value):
                    yield owner, name, key, item


def held_in(value: Any) -> Iterator[tuple[Key, Tensor]]:
    """Key and tensor, of the tensors in an attribute: itself, or those in a list, tuple or dict."""
    if isinstance(value, Tensor):
        yield None, value
    elif isinstance(value, list | tuple | dict):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(item, Tensor) and isinstance(key, str | int):
                yield key, item
