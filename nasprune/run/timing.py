"""The rounds of a search with a budget of latency.

Networks are cut and measured in every round, but neither refitted nor proved, since widths and blocks alone decide
their time. Where the controller's first proposal is mostly the result, the aim is set by such proposals before any is
evaluated. Where what was found misses the promise a little, the next round starts from it, with a part of the trials.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from nasprune.common.allocation import memory_reused
from nasprune.controllers.auto import Auto
from nasprune.controllers.single import SingleDecision
from nasprune.cut.tried import runs
from nasprune.run.aim import LatencyAim, Measured
from nasprune.run.exploration import CutCandidate, proposed
from nasprune.run.stage import PART, Explored, Stage, explored

SIGHTS = 3
"""Proposals that are measured before anything is explored, at most."""
FULL = 0.95
"""The share of the time that is aimed at below which another limit decides, where there is one."""
NEAR = 0.1
"""By which share a budget may move so that a round starts from what another one found."""


@memory_reused()
def explored_in_time(stage: Stage, aim: LatencyAim, numbers: Iterator[int]) -> Explored:
    """The network that keeps the promise best. numbers: of the rounds in the record.

    Raises:
        BudgetError: the smallest network takes longer.
    """
    out = stage.request.options.out
    aim.begin(stage.problem.cheapest().nanoseconds)
    if aim.lowest:
        _require_reach(stage, aim, timed(aim, _smallest(stage), stage))
    aim.keep(out)
    tried: list[Explored] = []
    for number in numbers:
        if not aim.resumed(stage.journal.known(number)) and not tried:
            _sight(stage, aim)
        here = _at(stage, aim)
        found = explored(here, number, after=_start(tried, here))
        tried.append(found)
        one = timed(aim, here.candidate(found.best.decision), here)
        aim.keep(out)
        if one is None:
            return found  # its proof will say why it does not run
        lowest = aim.lowest
        if aim.reached(one):
            return tried[aim.best]
        if lowest:
            _require_reach(stage, aim, one)
    raise AssertionError("numbers do not end")


def _at(stage: Stage, aim: LatencyAim) -> Stage:
    return replace(stage, problem=stage.problem.within(aim.solved), mark=aim.mark)


def _smallest(stage: Stage) -> CutCandidate:
    """The smallest network; which channels it keeps does not matter for its time."""
    problem, decision = stage.problem, stage.problem.space.smallest()
    scores = {group.name: torch.zeros(group.width, device="cpu") for group in problem.graph.groups}
    return CutCandidate(decision, problem.costs([decision])[0], problem.graph, scores, stage.request.model)


def _require_reach(stage: Stage, aim: LatencyAim, least: Measured | None) -> None:
    if least is not None and aim.used(least) > 1:
        aim.forget(stage.request.options.out)
        raise stage.problem.out_of_reach(str(stage.request.budget), aim.told(least))


def _start(tried: list[Explored], here: Stage) -> Explored | None:
    """The round before, where its budget was nearly that of `here`, and a part of its trials is some."""
    if not tried or PART * len(tried[-1].trials) < 1:
        return None
    before, now = (problem.budget.seconds or 0.0 for problem in (tried[-1].problem, here.problem))
    return tried[-1] if abs(now - before) <= NEAR * before else None


def _sight(stage: Stage, aim: LatencyAim) -> None:
    """Corrects the aim by what the controller proposes first, where that is mostly the result, before it is evaluated.

    Elsewhere it would say little: predictions are right for other shares of networks with other widths.
    """
    if not issubclass(stage.request.methods.controller, (Auto, SingleDecision)):
        return
    for _ in range(SIGHTS):
        if stage.request.limits.stopped:
            return
        here = _at(stage, aim)
        decision = proposed(here.problem, here.controller(), stage.request.options.seed, 0)
        one = None if decision is None else timed(aim, here.candidate(decision), here)
        aim.keep(stage.request.options.out)
        if one is None or aim.sighted(one):
            return


def timed(aim: LatencyAim, candidate: CutCandidate, stage: Stage) -> Measured | None:
    """What the network of a candidate takes, cut and nothing else; `None` where it does not run."""

    def build() -> nn.Module | None:
        small, match = runs(candidate.dense, candidate.graph, candidate.plan)
        return small.eval() if match.ok else None

    with stage.request.phases.phase("measuring latency"):
        whole = not (candidate.plan.keep or candidate.plan.drop)
        predicted = candidate.cost.nanoseconds / 1e9
        held = whole or (_limited_otherwise(stage) and predicted < FULL * aim.seconds)
        return aim.measured(candidate.decision.digest, predicted, build, whole=whole, held=held)


def _limited_otherwise(stage: Stage) -> bool:
    return bool(replace(stage.problem.budget, seconds=None).limited)
