"""Plans to try cuts with: about half of each group, or another share of each."""

from __future__ import annotations

from collections.abc import Sequence

from nasprune.cut.plan import PrunePlan
from nasprune.graph.model import CoupledGroup, ModelGraph


def half_plan(graph: ModelGraph, names: Sequence[str], dropped: Sequence[str] = ()) -> PrunePlan:
    """Keeps about half of each named group, an uneven choice of units, the same share of every cell."""
    return PrunePlan(
        signature=graph.signature,
        keep={name: _uneven(graph.group(name), max(1, _steps(graph.group(name)) // 2)) for name in names},
        drop=tuple(sorted(dropped)),
        scope=graph.scope,
    )


def uneven_plan(graph: ModelGraph, names: Sequence[str], seed: int = 0) -> PrunePlan:
    """Keeps a share of its own of each named group, so that sizes that are equal before are not so afterwards."""
    keep = {}
    for number, name in enumerate(names, seed):
        steps = _steps(graph.group(name))
        keep[name] = _uneven(graph.group(name), max(1, steps - 1 - number % max(1, steps - 1)))
    return PrunePlan(signature=graph.signature, keep=keep, scope=graph.scope)


def _steps(group: CoupledGroup) -> int:
    return group.width // group.multiple_of


def _uneven(group: CoupledGroup, steps_kept: int) -> tuple[int, ...]:
    """An uneven choice of units, the same share of every cell."""
    kept: list[int] = []
    for number, cell in enumerate(group.partitions):
        wanted = len(cell) // _steps(group) * steps_kept
        order = sorted(cell, key=lambda unit: ((unit * 7919 + number * 104729) % 65537, unit))
        kept += order[:wanted]
    return tuple(sorted(kept))
