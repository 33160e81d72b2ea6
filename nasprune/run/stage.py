"""One round: a controller explores a priced space, every trial is recorded, and one of them is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from nasprune.base import Controller, EvaluationTask
from nasprune.controllers.near import Near
from nasprune.cut.plan import PrunePlan
from nasprune.run.chosen import chosen
from nasprune.run.exploration import CutCandidate, Exploration, Limits, evaluate
from nasprune.run.fitting import Refit
from nasprune.run.journal import Journal
from nasprune.run.request import Request
from nasprune.run.sharing import state
from nasprune.space.choices import Decision
from nasprune.space.priced import PricedSpace
from nasprune.space.trials import Trial

PART = 1 / 8
"""Of the trials and of the time, for a round that starts from what another one found."""


@dataclass(frozen=True)
class Stage:
    """What the rounds over one graph have in common.

    frozen: what was left whole on the way, with reasons. refit: of candidates; it keeps what the dense network gives.
    mark: what else the record says of a round.
    """

    request: Request
    problem: PricedSpace
    journal: Journal
    frozen: Mapping[str, str]
    refit: Refit | None = None
    mark: Mapping[str, str] = field(default_factory=dict)

    def candidate(self, decision: Decision) -> CutCandidate:
        """The network of a decision."""
        problem = self.problem
        cost = problem.costs([decision])[0]
        return CutCandidate(decision, cost, problem.graph, problem.scores(), self.request.model, self.refit)

    def controller(self) -> Controller:
        """The one that was asked for, at its beginning."""
        return self.request.methods.new_controller(self.problem, seed=self.request.options.seed)


@dataclass(frozen=True)
class Explored:
    """What a controller found, not proved as yet. plan: of the best trial. dense_score: asks the evaluator."""

    problem: PricedSpace
    trials: list[Trial]
    best: Trial
    plan: PrunePlan
    dense_score: Callable[[], float]


def explored(stage: Stage, number: int, *, after: Explored | None = None) -> Explored:
    """Scores units, asks, evaluates and chooses.

    number: of the round in the record. after: a round within nearly the same budget; its best decision is where this
    one starts, which takes a part of the trials.
    """
    request, problem, journal = stage.request, stage.problem, stage.journal
    methods, seed = request.methods, request.options.seed
    if number and request.limits.stopped:
        journal.end()  # later rounds of a search that was stopped are not those of one that goes on
    controller = stage.controller() if after is None else Near(problem, seed=seed, start=after.best.decision)
    scores = problem.scores()  # after the controller is made: it may lack a package
    validation = request.data.validation if request.data is not None else None
    task = EvaluationTask(
        problem.graph, request.model, scores, problem, request.calibration, validation, str(request.device)
    )
    evaluator = methods.new_evaluator(task)
    exploration = Exploration(problem, controller, evaluator, stage.candidate, seed)
    recorded = journal.round(number, {**stage.frozen, **stage.mark})
    limits = request.limits if after is None else request.limits.part(PART)
    if journal.closed(number):
        limits = Limits(len(recorded), None)
    with request.phases.phase("searching"):
        trials = exploration.run(limits, journal, recorded, request.on_progress)
        best = chosen(methods, task, trials, stage.candidate)

    def dense_score() -> float:
        with request.phases.phase("searching"):
            return evaluate(evaluator, stage.candidate(problem.space.largest()))

    def known_dense_score() -> float:
        return request.options.shared.once(("dense score", state(problem.graph)), dense_score)

    return Explored(problem, _all(after, trials), best, stage.candidate(best.decision).plan, known_dense_score)


def _all(after: Explored | None, trials: list[Trial]) -> list[Trial]:
    """With those of the round before, numbered on."""
    before = after.trials if after is not None else []
    return [*before, *(replace(trial, index=len(before) + trial.index) for trial in trials)]
