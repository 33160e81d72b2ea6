"""The search loop: ask, fit to the budget, evaluate, tell. Everything that is new is written to the journal first."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor, nn

from nasprune.base import Controller, Evaluator
from nasprune.common.blame import running
from nasprune.common.randomness import seed_all
from nasprune.common.untouched import twin
from nasprune.cost.budget import Cost
from nasprune.cut.plan import PrunePlan
from nasprune.cut.selection import select
from nasprune.cut.surgery import build
from nasprune.errors import InputError, PluginError
from nasprune.graph.model import ModelGraph
from nasprune.run.journal import Journal
from nasprune.space.budgeted import BudgetedSpace
from nasprune.space.choices import Decision
from nasprune.space.trials import Trial


@dataclass(frozen=True)
class Progress:
    """How far a search is. total: `None` where only the time is limited. elapsed: seconds; cost, best_score: so far.

    score, own: of the trial that has just ended, its score and cost.
    """

    index: int
    total: int | None
    best_score: float
    cost: Cost
    elapsed: float
    score: float
    own: Cost


@dataclass(frozen=True)
class Limits:
    """When to stop. trials: at most so many. seconds: no new trial after so much time, replayed trials included.

    asked: is asked before every new trial whether to stop; one is made in any case.
    """

    trials: int | None
    seconds: float | None
    asked: Callable[[], bool] | None = None

    @property
    def stopped(self) -> bool:
        return self.asked is not None and self.asked()

    def part(self, share: float) -> Limits:
        """A share of the trials and of the seconds, at least one trial."""
        trials = None if self.trials is None else max(1, round(share * self.trials))
        return Limits(trials, None if self.seconds is None else share * self.seconds, self.asked)


@dataclass(frozen=True)
class CutCandidate:
    """A `Candidate`: a decision on one model; the plan and the cut model are made when asked for.

    finished: the cut model where it is there already.
    """

    decision: Decision
    cost: Cost
    graph: ModelGraph = field(repr=False)
    scores: Mapping[str, Tensor] = field(repr=False)
    dense: nn.Module = field(repr=False)
    refit: Callable[[nn.Module, PrunePlan], object] | None = field(default=None, repr=False)
    finished: nn.Module | None = field(default=None, repr=False)

    @cached_property
    def plan(self) -> PrunePlan:
        return select(self.graph, self.scores, self.decision)

    @property
    def keep(self) -> Mapping[str, Sequence[int]]:
        return self.plan.keep

    @property
    def drop(self) -> Sequence[str]:
        return self.plan.drop

    @property
    def refitted(self) -> bool:
        return self.refit is not None or self.finished is not None

    @property
    def zeroed(self) -> bool:
        return self.finished is not None and self.finished is not self.dense

    def model(self) -> nn.Module:
        if self.finished is not None:
            return twin(self.finished).eval()
        small = build(self.dense, self.graph, self.plan).eval()
        if self.refit is not None:
            self.refit(small, self.plan)
        return small


@dataclass(frozen=True)
class Exploration:
    """One round of search over one space. seed: of the repairs; proposals are seeded in the controller."""

    problem: BudgetedSpace
    controller: Controller
    evaluator: Evaluator
    candidate: Callable[[Decision], CutCandidate]
    seed: int

    def run(
        self,
        limits: Limits,
        journal: Journal,
        recorded: Sequence[Trial],
        on_progress: Callable[[Progress], None] | None,
    ) -> list[Trial]:
        """All trials, the recorded ones first; they are replayed, not evaluated.

        A decision that was evaluated before is told from memory.

        Raises:
            InputError: a recorded trial is not what the controller proposes. PluginError: a plugin breaks its contract.
        """
        trials: list[Trial] = []
        known: dict[str, float] = {}
        best: Trial | None = None
        start = time.monotonic() - sum(trial.seconds for trial in recorded)
        while limits.trials is None or len(trials) < limits.trials:
            index = len(trials)
            fresh = index >= len(recorded)
            late = limits.seconds is not None and time.monotonic() - start > limits.seconds
            if fresh and (limits.stopped or late) and trials:
                break
            decision = proposed(self.problem, self.controller, self.seed, index)
            if decision is None:
                break
            trial = self._trial(index, decision, known) if fresh else recorded[index]
            if trial.decision.digest != decision.digest:
                raise InputError(
                    f"trial {index} of the record is not what these settings propose; the record comes from another "
                    "version or machine, choose another output folder"
                )
            known[decision.digest] = trial.score
            if fresh:
                journal.add(trial)
            with running(self.controller, f"controller `{type(self.controller).__name__}`"):
                self.controller.tell(trial)
            trials.append(trial)
            best = trial if best is None or trial.score > best.score else best
            if on_progress is not None:
                elapsed = time.monotonic() - start
                on_progress(Progress(index, limits.trials, best.score, best.cost, elapsed, trial.score, trial.cost))
        return trials

    def _trial(self, index: int, decision: Decision, known: Mapping[str, float]) -> Trial:
        candidate = self.candidate(decision)
        begin = time.perf_counter()
        score = known.get(decision.digest)
        if score is None:
            score = evaluate(self.evaluator, candidate)
        return Trial(index, decision, candidate.cost, score, time.perf_counter() - begin)


def proposed(problem: BudgetedSpace, controller: Controller, seed: int, index: int) -> Decision | None:
    """What the controller asks for as the trial `index`, fitted to the budget; `None` where it is at its end."""
    with running(controller, f"controller `{type(controller).__name__}`"):
        proposal = controller.ask()
    if proposal is None:
        return None
    return problem.fit(proposal, random.Random(f"{seed}/{index}"), grow=controller.fills)


def evaluate(evaluator: Evaluator, candidate: CutCandidate) -> float:
    """The evaluator's score, checked. The global generators are seeded by the decision.

    Raises:
        PluginError: the evaluator fails, or gives no finite number.
    """
    own = getattr(evaluator, "name", type(evaluator).__name__)  # of the user's function, where it is one
    name = f"evaluator `{own}` on decision {candidate.decision.digest}"
    seed_all(int(candidate.decision.digest, 16), candidate.dense)
    with running(evaluator, name):
        score = float(evaluator.evaluate(candidate))
    if not math.isfinite(score):
        raise PluginError(f"{name}: expected a finite score, got {score}")
    return score
