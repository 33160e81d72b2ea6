"""Trimming: candidates go in one or several stages until the supernet keeps its budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nasprune.base import Batch, OpScorer
from nasprune.errors import BudgetError, InputError, PluginError, VerificationError
from nasprune.supernet.find.choices import everything
from nasprune.supernet.price.counting import Counter, Counts, count_module
from nasprune.supernet.price.limits import Limit, amount
from nasprune.supernet.score.scoring import seeded
from nasprune.supernet.score.task import ScoringTask
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.trim.knapsacks import best_subsets
from nasprune.supernet.trim.schedules import Stage

Scores = Mapping[str, Tensor]
Tune = Callable[[Structure, int], Structure]
"""Trains a structure's net for so many epochs; gives a new structure."""


@dataclass(frozen=True)
class Data:
    """What scorers may look at. train, validation: batches of different images; empty without data."""

    train: Sequence[Batch] = ()
    validation: Sequence[Batch] = ()


@dataclass(frozen=True)
class Trimmed:
    """A smaller structure, what decided it, and its cost.

    scores: choice -> candidate -> score, at the last stage that looked at it. predicted, counted: the cost by the price
    list and by counting the net.
    """

    structure: Structure
    scores: Mapping[str, Mapping[str, float]]
    predicted: Counts
    counted: Counts


def scores_of(structure: Structure, scorer: OpScorer, data: Data, seed: int) -> dict[str, Tensor]:
    """The scores (ops,) of every choice, on a copy of the net, checked.

    Raises:
        InputError: the scorer needs data or architecture weights, and there are none.
        PluginError: it breaks its contract.
    """
    name = type(scorer).__name__
    if scorer.needs_data and not data.validation:
        raise InputError(f"the scorer {name} needs data; give some with `data=` (`--data`), or take `paths`")
    if scorer.needs_weights and any(structure.shares_in(structure.net, one) is None for one in structure.choices):
        raise InputError(f"the scorer {name} needs architecture weights, which are unknown; give `weights=`")
    task = ScoringTask.on_copy(structure, data.train, data.validation, seed)
    with seeded(seed, structure.inputs[0].device):
        try:
            found = scorer.score(task)
        except (InputError, PluginError):
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(f"the scorer {name} failed: {type(error).__name__}: {error}") from error
    for choice in structure.choices:
        values = found.get(choice.name)
        if not isinstance(values, Tensor) or values.shape != (len(choice.ops),) or not values.isfinite().all():
            raise PluginError(
                f"the scorer {name} must give {len(choice.ops)} finite numbers for {choice.name!r}, got {values!r}"
            )
    return {choice.name: found[choice.name].detach().double().cpu() for choice in structure.choices}


def trim(
    structure: Structure,
    scorer: OpScorer,
    stages: Sequence[Stage],
    limit: Limit | None,
    data: Data,
    seed: int,
    tune: Tune | None = None,
) -> Trimmed:
    """Goes through the stages; the limit of each lies evenly, on a logarithmic scale, between the cost and `limit`.

    Global random states are afterwards as before.

    Raises:
        BudgetError: the cheapest candidates are above the limit. VerificationError: the result does not cost what was
        predicted.
    """
    known: dict[str, dict[str, float]] = {}
    start = structure.cost_of(limit.counter) if limit is not None else 0
    with seeded(seed, structure.inputs[0].device):
        for number, stage in enumerate(stages, 1):
            scores = scores_of(structure, scorer, data, seed)
            for choice in structure.choices:
                known.setdefault(choice.name, {}).update(zip(choice.ops, scores[choice.name].tolist(), strict=True))
            share = number / len(stages)
            structure = _cut(structure, scores, stage, _part(limit, start, share))
            if stage.epochs and tune is not None:
                structure = tune(structure, stage.epochs)
        predicted = structure.counts
        counted = count_module(structure.net, tuple(structure.inputs[0].shape))
    check_count(predicted, counted, limit)
    return Trimmed(structure, known, predicted, counted)


def check_count(predicted: Counts, counted: Counts, limit: Limit | None) -> None:
    """Raises VerificationError unless what was built costs what was predicted, and no more than allowed."""
    if predicted != counted:
        raise VerificationError(f"the net that was built costs {counted}, predicted were {predicted}")
    if limit is not None and limit.counter != "latency" and counted[limit.counter] > limit.number:
        raise VerificationError(f"the net that was built costs {counted}, the budget is {limit}")


def choose(structure: Structure, scores: Scores, stage: Stage, limit: Limit | None) -> dict[str, tuple[int, ...]]:
    """The candidates that a stage keeps, by number."""
    counter: Counter = limit.counter if limit is not None else "fvcore"
    costs = {one.name: structure.costs_of(one, counter) for one in structure.choices}
    room = limit.number - structure.base_cost(counter) if limit is not None else None
    if room is not None and counter == "params":  # of what may become a `Mixed`
        room -= sum(len(place.ops) for place in structure.mixed if place.single_path)
    if room is not None and room < 0:
        raise BudgetError(
            f"the supernet without any candidate already costs {amount(structure.base_cost(counter), counter)}, "
            f"the budget is {limit}; raise it"
        )
    most = stage.keep_max(structure.choices, scores)
    return best_subsets(structure.choices, scores, costs, room, most, say=partial(amount, counter=counter))


def check_affordable(structure: Structure, limit: Limit | None) -> None:
    """Raises BudgetError where not even the cheapest candidates of every choice keep the limit: no score is needed."""
    if limit is not None:
        choose(structure, nothing(structure), Stage(keep=1), limit)


def nothing(structure: Structure) -> dict[str, Tensor]:
    """Scores of zero."""
    return {one.name: torch.zeros(len(one.ops), dtype=torch.float64, device="cpu") for one in structure.choices}


def _cut(structure: Structure, scores: Scores, stage: Stage, limit: Limit | None) -> Structure:
    kept = {**everything(structure.choices), **choose(structure, scores, stage, limit)}
    return structure.keep(kept)


def _part(limit: Limit | None, start: int, share: float) -> Limit | None:
    if limit is None or share == 1:
        return limit
    whole = max(start, 1)
    return Limit(max(limit.number, round(whole * (limit.number / whole) ** share)), limit.counter)
