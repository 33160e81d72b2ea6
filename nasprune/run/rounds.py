"""Price, explore, prove: again over a graph that keeps whole what failed its proof, until nothing fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count

from torch import Tensor

from nasprune.cost.flops import CostModel
from nasprune.cut.verify import Proven, prove
from nasprune.graph.model import ModelGraph
from nasprune.harm.damage import Damages
from nasprune.run.aim import LatencyAim, latency_aim
from nasprune.run.fitting import CandidateRefit, candidate_refit, harms
from nasprune.run.journal import Journal
from nasprune.run.names import search_space
from nasprune.run.request import Request
from nasprune.run.sharing import state
from nasprune.run.stage import Stage, explored
from nasprune.run.timing import explored_in_time
from nasprune.space.choices import SearchSpace
from nasprune.space.priced import PricedSpace
from nasprune.space.trials import Trial


@dataclass(frozen=True)
class Found:
    """The best decision of a search over one graph, proved.

    frozen: what was left whole on the way, with reasons. refit: of networks of this graph.
    """

    graph: ModelGraph
    problem: PricedSpace
    trials: list[Trial]
    best: Trial
    dense_score: float
    proven: Proven
    frozen: Mapping[str, str]
    aim: LatencyAim | None = None
    refit: CandidateRefit | None = None

    @property
    def latency(self) -> list[float] | None:
        """Milliseconds of the dense and the cut network, where the budget limits them and so they were measured."""
        if self.aim is None or not self.aim.tried:
            return None
        one = self.aim.tried[self.aim.best]
        return [1e3 * one.dense, 1e3 * one.cut]


def best_proved(request: Request, graph: ModelGraph, journal: Callable[[], Journal]) -> Found:
    """The best plan that passes its proof. journal: opened once the budget is known to be within reach."""
    once, aim = request.options.shared.once, latency_aim(request, graph)
    prices = once("prices", lambda: CostModel(graph)) if aim is None else CostModel(graph, aim.clocked.times)
    opened: Journal | None = None
    frozen: dict[str, str] = {}
    numbers = count()
    while True:  # it ends, since every further round freezes something
        graph = graph.frozen(frozen)
        problem = _priced(request, graph, prices, aim)
        opened = opened or journal()
        refit = candidate_refit(request, graph)
        stage = Stage(request, problem, opened, frozen, refit)
        with opened.dropped_if_empty():
            best = explored(stage, next(numbers)) if aim is None else explored_in_time(stage, aim, numbers)
            with request.phases.phase("proving"):
                proven = prove(request.model, graph, best.plan)
        if not proven.proof.frozen:
            return Found(graph, best.problem, best.trials, best.best, best.dense_score(), proven, frozen, aim, refit)
        frozen = {**frozen, **proven.proof.frozen}


def _priced(request: Request, graph: ModelGraph, prices: CostModel, aim: LatencyAim | None) -> PricedSpace:
    """The space with its prices, and what measures harms and importances when a controller asks for them."""
    options = {name: value for name, value in request.options.space.items() if value != ()}
    space = search_space(graph, request.methods.space, plugins=request.options.plugins, **options)
    counted = replace(request.budget, seconds=None, seconds_share=None)
    problem = PricedSpace(graph, space, prices, counted, lambda: _spared(request, graph, space, options))
    problem.require_feasible()
    problem = problem if aim is None else problem.within(aim.solved)

    once = request.options.shared.once

    def scored() -> Mapping[str, Tensor]:
        with request.phases.phase("scoring units") as step:
            scorer, seed = request.methods.scorer, request.options.seed
            return scorer.scores(request.model, graph, seed=seed, data=request.calibration, on_step=step)

    def score() -> Mapping[str, Tensor]:
        return once(("scores", state(graph)), scored)

    problem = problem.with_scores(score)
    if request.calibration is None:
        return problem

    def priced() -> Damages:
        scores = score()
        with request.phases.phase("pricing harms") as step:
            return harms(request, graph, space, prices.dense.flops, scores, step)

    return problem.with_damages(lambda: once(("harms", state(graph)), priced))


def _spared(request: Request, graph: ModelGraph, space: SearchSpace, options: Mapping[str, object]) -> str:
    """How much of what could be cut the options `include` and `exclude` leave out; "" where that is nothing."""
    given = [name for name in ("include", "exclude") if options.get(name)]
    others = {name: value for name, value in options.items() if name not in given}
    whole = search_space(graph, request.methods.space, plugins=request.options.plugins, **others)
    left = len(whole.choices) - len(space.choices)
    verb = "leaves" if len(given) == 1 else "leave"
    named = " and ".join(f"`{name}`" for name in given)
    return f"{named} {verb} out {left} of {len(whole.choices)} groups and blocks that can be cut" if left else ""
