"""Trial cuts: where sizes may be fixed in the user's code, cutting shows whether they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from nasprune.graph.model import CoupledGroup, ModelGraph
from nasprune.plan import PrunePlan
from nasprune.verify import bisect, distinct, trial


def settle_doubts(model: nn.Module, graph: ModelGraph, doubts: Mapping[str, frozenset[str]]) -> ModelGraph:
    """The graph with those doubtful groups frozen whose trial cut does not run or does not verify.

    Groups that are in doubt because of the same lines of code are tried together. doubts: group name -> lines.
    """
    lines: dict[frozenset[str], list[str]] = {}
    for group in graph.groups:
        if group.free and group.name in doubts:
            lines.setdefault(doubts[group.name], []).append(group.name)
    if not lines:
        return graph
    stirred = distinct(model)
    labels = {", ".join(sorted(places)): names for places, names in lines.items()}

    def reason(chosen: Sequence[str]) -> str:
        names = [name for label in chosen for name in labels[label]]
        return trial(stirred, graph, half_plan(graph, names)).reason

    failed = bisect(list(labels), reason)
    return graph.frozen(
        {
            name: f"its size seems to be fixed in the code at {label} ({failed[label]})"
            for label in failed
            for name in labels[label]
        }
    )


def half_plan(graph: ModelGraph, names: Sequence[str]) -> PrunePlan:
    """Keeps about half of each named group, an uneven choice of units, equally many in every cell."""
    return PrunePlan(
        signature=graph.signature,
        keep={name: _uneven_half(graph.group(name)) for name in names},
        scope=graph.scope,
    )


def _uneven_half(group: CoupledGroup) -> tuple[int, ...]:
    steps = group.width // group.multiple_of
    kept: list[int] = []
    for number, cell in enumerate(group.partitions):
        wanted = len(cell) // steps * max(1, steps // 2)
        order = sorted(cell, key=lambda unit: ((unit * 7919 + number * 104729) % 65537, unit))
        kept += order[:wanted]
    return tuple(sorted(kept))
