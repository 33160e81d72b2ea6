"""The chosen scorer beside the baselines that every claim about a scorer needs: an order by FLOPs, and chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from nasprune.errors import NaspruneError
from nasprune.supernet.find.choices import Kept
from nasprune.supernet.price.limits import Limit
from nasprune.supernet.report.accuracy import accuracies
from nasprune.supernet.report.standing import Standing, random_selections, standing
from nasprune.supernet.score.naming import op_scorer
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.trim.schedules import Stage
from nasprune.supernet.trim.trimming import Data, Trimmed, choose, scores_of

BASELINES = ("flops_order", "random")
DRAWS = 100
"""Random selections."""
MEASURED = 3
"""Random selections whose accuracy is measured, which takes long."""


@dataclass(frozen=True)
class Row:
    """A supernet trimmed by one scorer, before any further training; means where there are several draws.

    overlap: share of the chosen scorer's candidates that this one keeps too. fvcore, macs: predicted, exactly.
    accuracy, reestimated: on the validation images, without and with batch-norm statistics anew, of the first three
    draws; `None` without data.
    """

    scorer: str
    draws: int
    overlap: float
    candidates: float
    fvcore: float
    macs: float
    accuracy: float | None = None
    reestimated: float | None = None


@dataclass(frozen=True)
class Compared:
    """rows: the chosen scorer first. standing: among random selections. notes: on both."""

    rows: tuple[Row, ...]
    standing: Standing | None
    notes: tuple[str, ...]


def compared(
    before: Structure,
    trimmed: Trimmed,
    scorer: str,
    stages: Sequence[Stage],
    limit: Limit | None,
    data: Data,
    seed: int,
) -> Compared:
    """The scorer beside the baselines. Nobody trains between stages here, so that all rows have the same weights.

    Without a limit the baselines get the FLOPs that the chosen scorer kept: there is no comparing otherwise.
    """
    notes = []
    numbers = {one.name: one.ops for one in trimmed.structure.choices}
    chosen = {one.name: tuple(one.ops.index(op) for op in numbers.get(one.name, ())) for one in before.choices}
    rows = [_row(scorer, [chosen], chosen, before, data, seed)]
    room = limit or Limit(trimmed.predicted.fvcore, "fvcore")
    chance = random_selections(before, stages[-1], room, seed, DRAWS)
    for name in BASELINES:
        if name == scorer.partition("(")[0]:
            continue
        try:
            found = chance if name == "random" else [_chosen_by(name, before, stages[-1], room, data, seed)]
        except NaspruneError as error:
            notes.append(f"The baseline {name} could not run: {error}.")
            continue
        rows += [_row(name, found, chosen, before, data, seed)] if found else []
    if any(stage.epochs for stage in stages) and data.train:
        notes.append("The rows compare selections on the weights before any training between stages.")
    kept = {one.name: one.ops for one in trimmed.structure.choices}
    return Compared(tuple(rows), standing(before, trimmed.scores, kept, chance, room), tuple(notes))


def _chosen_by(name: str, structure: Structure, stage: Stage, limit: Limit, data: Data, seed: int) -> Kept:
    """All stages at once: the scores of a baseline do not change on the way, so only the last stage matters."""
    return choose(structure, scores_of(structure, op_scorer(name), data, seed), stage, limit)


def _row(name: str, found: Sequence[Kept], chosen: Kept, before: Structure, data: Data, seed: int) -> Row:
    wanted = _pairs(chosen)
    kept = [_pairs(one) for one in found]
    counts = [before.prices.of_kept(before.choices, one) for one in found]
    right: tuple[float, float] | None = None
    if data.validation:
        try:
            pairs = [accuracies(before.keep(one), data, seed) for one in found[:MEASURED]]
            right = mean(pair[0] for pair in pairs), mean(pair[1] for pair in pairs)
        except NaspruneError:
            right = None
    return Row(
        scorer=name,
        draws=len(found),
        overlap=mean(len(wanted & one) / len(wanted) for one in kept),
        candidates=mean(len(one) for one in kept),
        fvcore=mean(one.fvcore for one in counts),
        macs=mean(one.macs for one in counts),
        accuracy=right[0] if right else None,
        reestimated=right[1] if right else None,
    )


def _pairs(kept: Kept) -> set[tuple[str, int]]:
    return {(name, op) for name, some in kept.items() for op in some}
