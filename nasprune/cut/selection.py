"""From kept counts to kept units: the best by score, the same share in every cell of a group."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from nasprune.cut.plan import PrunePlan
from nasprune.cut.recorded import InputSpec
from nasprune.errors import PlanError
from nasprune.graph.model import CoupledGroup, Ints, ModelGraph


def select(graph: ModelGraph, scores: Mapping[str, Tensor], decision: Mapping[str, int]) -> PrunePlan:
    """The plan that keeps the best-scored units in the numbers that `decision` names.

    Args:
        graph: what the names refer to.
        scores: group name -> scores (width,), for every group that the decision narrows.
        decision: group name -> kept count in [1, width]; block name -> 0 (gone) or 1. What it leaves out is kept whole.

    Returns:
        A plan without the groups that stay whole or vanish with a dropped block.

    Raises:
        PlanError: a name is unknown or frozen, a count does not fit its group, or scores are missing.
    """
    blocks = {block.name: block for block in graph.blocks}
    groups = {group.name: group for group in graph.groups}
    for name in decision:
        if name not in blocks and name not in groups:
            raise PlanError(f"the decision names {name!r}, which is neither a group nor a block of this model")
    drop = tuple(sorted(name for name in blocks if decision.get(name, 1) == 0))
    gone = {group for name in drop for group in blocks[name].groups}
    for name in drop:
        if not blocks[name].free:
            raise PlanError(f"block {name!r} is frozen: {blocks[name].frozen_because}; keep it")
    keep = {}
    for group in graph.groups:
        kept = decision.get(group.name, group.width)
        if kept == group.width or group.name in gone:
            continue
        if not group.free:
            raise PlanError(f"group {group.name!r} is frozen: {group.frozen_because or 'too narrow'}; keep it whole")
        if group.name not in scores:
            raise PlanError(f"group {group.name!r} is to be narrowed to {kept} but has no scores; score it first")
        keep[group.name] = best_units(group, scores[group.name], kept)
    inputs = InputSpec.of(graph.example_inputs)
    return PrunePlan(signature=graph.signature, keep=keep, drop=drop, scope=graph.scope, inputs=inputs)


def best_units(group: CoupledGroup, scores: Tensor, kept: int) -> tuple[int, ...]:
    """The `kept` best units, ascending; each cell of the group keeps its share, ties go to the lower index.

    Raises:
        PlanError: `kept` is outside [1, width] or no multiple of `group.multiple_of`, or `scores` is not (width,).
    """
    if not 1 <= kept <= group.width or kept % group.multiple_of:
        raise PlanError(
            f"group {group.name!r} of width {group.width} can keep multiples of {group.multiple_of} from "
            f"{group.multiple_of} to {group.width}, got {kept}"
        )
    if tuple(scores.shape) != (group.width,):
        raise PlanError(f"group {group.name!r} needs scores of shape ({group.width},), got {tuple(scores.shape)}")
    best: list[int] = []
    for cell in best_first(group, scores):
        share, rest = divmod(kept * cell.size, group.width)
        if rest:
            raise PlanError(f"group {group.name!r}: keeping {kept} of {group.width} splits a cell of {cell.size} units")
        best.extend(cell[:share].tolist())
    return tuple(sorted(best))


def keep_order(group: CoupledGroup, scores: Tensor) -> tuple[int, ...]:
    """All units in the order in which they stay: for every count that the group can keep, its first are `best_units`.

    Each step takes `group.multiple_of` units, from every cell its share.
    """
    steps = group.width // group.multiple_of
    cells = [np.array_split(cell, steps) for cell in best_first(group, scores)]
    return tuple(int(unit) for step in range(steps) for cell in cells for unit in cell[step])


def best_first(group: CoupledGroup, scores: Tensor) -> list[Ints]:
    """The units of each cell of the group by falling score, ties by rising index; arrays of shape (cell size,)."""
    values = scores.detach().to("cpu").double().numpy()
    cells = [np.sort(np.asarray(cell, dtype=np.int64)) for cell in group.partitions] or [np.arange(group.width)]
    return [cell[np.argsort(-values[cell], kind="stable")] for cell in cells]
