"""What searches of one model on the same data have in common whatever their budgets: found once, then remembered."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from nasprune.graph.model import ModelGraph

T = TypeVar("T")


class Shared:
    """Remembers by keys. Give one to several searches only where budget, folder and callbacks alone differ.

    several: whether there are several, so that what takes much memory is worth it, too.
    """

    def __init__(self, *, several: bool = False) -> None:
        self.several = several
        self._found: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gave when the key came for the first time."""
        if key not in self._found:
            self._found[key] = make()
        found: T = self._found[key]
        return found


def state(graph: ModelGraph) -> Hashable:
    """What of a graph a proof may have changed: what is frozen, and why."""
    groups = tuple((group.name, group.frozen_because) for group in graph.groups)
    return groups, tuple((block.name, block.frozen_because) for block in graph.blocks)
