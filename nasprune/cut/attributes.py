"""Integer attributes of modules that hold sizes: which ones a module has, and setting them once it is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

from torch import nn

from nasprune.graph.hints import Bools
from nasprune.graph.model import ModelGraph


def integers(module: nn.Module) -> Iterator[tuple[str, int | None, int]]:
    """Plain integer attributes as (name, place, value): on their own, or at a place in a tuple or list."""
    for name, value in vars(module).items():
        if name.startswith("_") or name == "training":
            continue
        if is_size(value):
            yield name, None, value
        elif isinstance(value, tuple | list):
            yield from ((name, place, one) for place, one in enumerate(value) if is_size(one))


def is_size(value: object) -> TypeGuard[int]:
    """Whether a value may be the length of an axis with channels."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 1


def update(model: nn.Module, graph: ModelGraph, keep: Bools, dropped: Sequence[str] = ()) -> None:
    """Sets the attributes that hold the size of a cut axis."""
    for one in graph.attributes:
        if any(one.module == block or one.module.startswith(f"{block}.") for block in dropped):
            continue
        _set(model.get_submodule(one.module), one.place, one.size(keep))


def _set(held: Any, place: tuple[str | int, ...], size: int) -> Any:
    """What takes the place of `held`, changed at a place in it; objects are changed in place."""
    if not place:
        return size
    step, further = place[0], place[1:]
    if isinstance(held, tuple | list):
        return type(held)([_set(value, further, size) if at == step else value for at, value in enumerate(held)])
    if isinstance(held, dict):
        return {**held, step: _set(held[step], further, size)}
    setattr(held, str(step), _set(getattr(held, str(step)), further, size))
    return held
