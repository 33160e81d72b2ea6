"""Integer attributes of modules that hold sizes: which ones a module has, and setting them once it is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from nasprune.graph.hints import Bools
from nasprune.graph.model import ModelGraph


def integers(module: nn.Module) -> Iterator[tuple[str, int | None, int]]:
    """Plain integer attributes as (name, place, value): on their own, or at a place in a tuple or list."""
    for name, value in vars(module).items():
        if name.startswith("_") or name == "training":
            continue
        if _is_size(value):
            yield name, None, value
        elif isinstance(value, tuple | list):
            yield from ((name, place, one) for place, one in enumerate(value) if _is_size(one))


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 1


def update(model: nn.Module, graph: ModelGraph, keep: Bools, dropped: Sequence[str] = ()) -> None:
    """Sets the attributes that hold the size of a cut axis."""
    for one in graph.attributes:
        if any(one.module == block or one.module.startswith(f"{block}.") for block in dropped):
            continue
        module = model.get_submodule(one.module)
        size, held = one.size(keep), getattr(module, one.name)
        if one.index is not None:
            changed = [size if place == one.index else value for place, value in enumerate(held)]
            setattr(module, one.name, type(held)(changed))
        else:
            setattr(module, one.name, size)
