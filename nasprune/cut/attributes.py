"""Integer attributes of modules that hold sizes: which ones a module has, and setting them once it is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

from torch import nn

from nasprune.graph.hints import Bools, Place
from nasprune.graph.model import ModelGraph

CONFIGURATIONS = ("config", "cfg", "args", "hparams")


def integers(module: nn.Module) -> Iterator[tuple[Place, int]]:
    """Plain integers that a module holds: on their own, or in a tuple or list."""
    for name, value in vars(module).items():
        if not name.startswith("_") and name != "training":
            yield from (((name, *place), size) for place, size in listed(value))


def configured(module: nn.Module) -> Iterator[tuple[Place, int]]:
    """Those that a configuration holds which the module carries along, an object or a dict."""
    for owner, held in vars(module).items():
        if owner in CONFIGURATIONS:
            content = held if isinstance(held, dict) else getattr(held, "__dict__", {})
            for name, value in content.items():
                if isinstance(name, str) and not name.startswith("_"):
                    yield from (((owner, name, *place), size) for place, size in listed(value))


def listed(value: object) -> Iterator[tuple[Place, int]]:
    """A size, or the sizes in a tuple or list, each with its place there."""
    if is_size(value):
        yield (), value
    elif isinstance(value, tuple | list):
        yield from (((place,), one) for place, one in enumerate(value) if is_size(one))


def is_size(value: object) -> TypeGuard[int]:
    """Whether a value may be the length of an axis with channels."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 1


def update(model: nn.Module, graph: ModelGraph, keep: Bools, dropped: Sequence[str] = ()) -> None:
    """Sets the attributes that hold the size of a cut axis."""
    for one in graph.attributes:
        if any(one.module == block or one.module.startswith(f"{block}.") for block in dropped):
            continue
        _set(model.get_submodule(one.module), one.place, one.size(keep))


def _set(held: Any, place: Place, size: int) -> Any:
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
