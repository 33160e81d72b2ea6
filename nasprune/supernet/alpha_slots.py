"""Where a net holds its architecture weights: parameters, buffers, plain attributes, and rows of these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Key = str | int | None


@dataclass(frozen=True)
class Slot:
    """A tensor, or a row of one, in the module at path `owner`.

    name: of the attribute. key: in the list or dict that the attribute is; `None` where it is the tensor itself.
    row: index of the row, (i,) or (i, j), …; empty is the whole tensor. `read` finds it in any copy of the net.
    """

    owner: str
    name: str
    key: Key
    row: tuple[int, ...]

    def tensor(self, net: nn.Module) -> Tensor:
        """The whole tensor, as `net` holds it."""
        held: Any = getattr(net.get_submodule(self.owner), self.name)
        found: Tensor = held if self.key is None else held[self.key]
        return found

    def read(self, net: nn.Module) -> Tensor:
        """A view: the row, or the whole tensor."""
        return self.tensor(net)[self.row] if self.row else self.tensor(net)


def find_slot(net: nn.Module, tensor: Tensor) -> Slot | None:
    """Where `net` holds `tensor`, which may be a row of what it holds; `None` if it was computed.

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
    known = {value.data_ptr() for value in net.state_dict().values()}
    found: dict[str, Tensor] = {}
    for owner, name, key, held in _held(net):
        if held.requires_grad and held.is_leaf and held.data_ptr() not in known:
            known.add(held.data_ptr())
            found[".".join(part for part in (owner, name, "" if key is None else str(key)) if part)] = held
    return found


def _row(held: Tensor, tensor: Tensor) -> tuple[int, ...] | None:
    """Which row of `held` is `tensor`: () is all of it."""
    if held.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr() or not tensor.numel():
        return None
    depth = held.ndim - tensor.ndim
    if depth < 0 or held.shape[depth:] != tensor.shape or held.stride()[depth:] != tensor.stride():
        return None
    left = tensor.storage_offset() - held.storage_offset()
    row = []
    for size, stride in zip(held.shape[:depth], held.stride()[:depth], strict=True):
        index = int(left // stride) if stride else 0
        if not 0 <= index < size:
            return None
        row.append(index)
        left -= index * stride
    return tuple(row) if left == 0 else None


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
                for key, item in _items(value):
                    yield owner, name, key, item


def _items(value: Any) -> Iterator[tuple[Key, Tensor]]:
    if isinstance(value, Tensor):
        yield None, value
    elif isinstance(value, list | tuple | dict):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(item, Tensor) and isinstance(key, str | int):
                yield key, item
