"""The chosen scorer beside the baselines that every claim about a scorer needs: an order by FLOPs, and chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from nasprune.errors import NaspruneError
from nasprune.supernet.price.limits import Limit
from nasprune.supernet.report.accuracy import accuracies
from nasprune.supernet.score.naming import op_scorer
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.trim.schedules import Stage
from nasprune.supernet.trim.trimming import Data, Trimmed, choose, scores_of

BASELINES = {"flops_order": 1, "random": 3}
"""Scorer -> how many draws are averaged."""


@dataclass(frozen=True)
class Row:
    """A supernet trimmed by one scorer, before any further training; means where there are several draws.

    overlap: share of the chosen scorer's candidates that this one keeps too. fvcore, macs: predicted, exactly.
    accuracy, reestimated: on the validation images, without and with batch-norm statistics anew; `None` without data.
    """

    scorer: str
    draws: int
    overlap: float
    candidates: float
    fvcore: float
    macs: float
    accuracy: float | None = None
    reestimated: float | None = None


def compared(
    before: Structure,
    trimmed: Trimmed,
    scorer: str,
    stages: Sequence[Stage],
    limit: Limit | None,
    data: Data,
    seed: int,
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows and notes on them. Nobody trains between stages here, so that all rows have the same weights.

    Without a limit the baselines get the FLOPs that the chosen scorer kept: there is no comparing otherwise.
    """
    notes = []
    chosen = before.keep({choice.name: choice.ops for choice in trimmed.structure.choices})
    rows = [_row(scorer, [chosen], chosen, data, seed)]
    room = limit or Limit(trimmed.predicted.fvcore, "fvcore")
    for name, draws in BASELINES.items():
        if name == scorer.partition("(")[0]:
            continue
        try:
            found = [_trimmed_by(name, before, stages, room, data, seed + draw) for draw in range(draws)]
        except NaspruneError as error:
            notes.append(f"The baseline {name} could not run: {error}.")
            continue
        rows.append(_row(name, found, chosen, data, seed))
    if any(stage.epochs for stage in stages) and data.train:
        notes.append("The rows compare selections on the weights before any training between stages.")
    return tuple(rows), tuple(notes)


def _trimmed_by(
    name: str, structure: Structure, stages: Sequence[Stage], limit: Limit, data: Data, seed: int
) -> Structure:
    """All stages at once: the scores of a baseline do not change on the way, so only the last stage matters."""
    scorer = op_scorer(name)
    return structure.keep(choose(structure, scores_of(structure, scorer, data, seed), stages[-1], limit))


def _row(name: str, found: Sequence[Structure], chosen: Structure, data: Data, seed: int) -> Row:
    kept = [_kept(structure) for structure in found]
    wanted = _kept(chosen)
    counts = [structure.counts for structure in found]
    right: tuple[float, float] | None = None
    if data.validation:
        try:
            pairs = [accuracies(structure, data, seed) for structure in found]
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


def _kept(structure: Structure) -> set[tuple[str, str]]:
    return {(choice.name, op) for choice in structure.choices for op in choice.ops}
