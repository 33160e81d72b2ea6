"""Price, explore, prove: rounds over one graph, until a proof leaves nothing whole that was to be cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import count

import torch
from torch import Tensor, nn

from nasprune.base import EvaluationTask
from nasprune.cost.flops import CostModel
from nasprune.cut.plan import PrunePlan
from nasprune.cut.verify import Proven, prove
from nasprune.graph.model import ModelGraph
from nasprune.harm.damage import Damages, damages
from nasprune.refit.recalibrate import calibration_inputs, image_limit
from nasprune.refit.reconstruct import reconstruct
from nasprune.run.exploration import CutCandidate, Exploration, Limits, evaluate
from nasprune.run.journal import Journal
from nasprune.run.names import search_space
from nasprune.run.request import Request
from nasprune.space.choices import Decision
from nasprune.space.priced import PricedSpace
from nasprune.space.trials import Trial

TRIAL_IMAGES = 256  # that a candidate is refitted on
DAMAGE_IMAGES = 512
DAMAGE_FLOPS = 300 * 10**9  # of dense runs that measuring damages may take

Refit = Callable[[nn.Module, PrunePlan], object]


@dataclass(frozen=True)
class Found:
    """The best decision of a search over one graph, proved. frozen: what was left whole on the way, with reasons."""

    graph: ModelGraph
    problem: PricedSpace
    trials: list[Trial]
    best: Trial
    dense_score: float
    proven: Proven
    frozen: Mapping[str, str]


def best_proved(request: Request, graph: ModelGraph, journal: Callable[[], Journal]) -> Found:
    """The best plan that passes its proof. journal: opened once the budget is known to be within reach."""
    prices = CostModel(graph)
    opened: Journal | None = None
    frozen: dict[str, str] = {}
    for number in count():
        graph = graph.frozen(frozen)
        problem = _priced(request, graph, prices)
        opened = opened or journal()
        with opened.dropped_if_empty():
            found = _round(request, graph, problem, opened, number, frozen)
        if not found.proven.proof.frozen:
            return found
        frozen = {**frozen, **found.proven.proof.frozen}
    raise AssertionError("rounds end, since every further one freezes something")


def _priced(request: Request, graph: ModelGraph, prices: CostModel) -> PricedSpace:
    options = {name: value for name, value in request.options.space.items() if value != ()}
    space = search_space(graph, request.methods.space, plugins=request.options.plugins, **options)
    problem = PricedSpace(graph, space, prices, request.budget)
    problem.require_feasible()
    return problem


def _round(
    request: Request,
    graph: ModelGraph,
    problem: PricedSpace,
    journal: Journal,
    number: int,
    frozen: Mapping[str, str],
) -> Found:
    """Scores, searches and proves."""
    methods, model, seed, calibration = request.methods, request.model, request.options.seed, request.calibration
    score = cache(lambda: methods.scorer.scores(model, graph, seed=seed, data=calibration))
    problem = problem.with_scores(score)
    if calibration is not None:
        problem = problem.with_damages(lambda: _damages(request, graph, problem, score()))
    refit = _refit(request, graph)
    controller = methods.controller(problem, seed=seed)  # before anything is scored: it may lack a package
    scores = score()
    validation = request.data.validation if request.data is not None else None
    evaluator = methods.evaluator(
        EvaluationTask(graph, model, scores, problem, calibration, validation, str(request.device))
    )

    def candidate(decision: Decision) -> CutCandidate:
        return CutCandidate(decision, problem.costs([decision])[0], graph, scores, model, refit)

    exploration = Exploration(problem, controller, evaluator, candidate, seed)
    recorded = journal.round(number, frozen)
    limits = Limits(len(recorded), None) if journal.closed(number) else request.limits
    trials = exploration.run(limits, journal, recorded, request.on_progress)
    best = max(trials, key=lambda trial: trial.score)
    dense_score = evaluate(evaluator, candidate(problem.space.largest()))
    proven = prove(model, graph, candidate(best.decision).plan)
    return Found(graph, problem, trials, best, dense_score, proven, frozen)


def _refit(request: Request, graph: ModelGraph) -> Refit | None:
    """Refits a candidate in place, on few images."""
    if request.calibration is None or not request.methods.refits:
        return None
    images = calibration_inputs(request.calibration, min(TRIAL_IMAGES, image_limit(graph)), request.device)
    return partial(_refitted, request, graph, images)


def _refitted(request: Request, graph: ModelGraph, images: Tensor, small: nn.Module, plan: PrunePlan) -> None:
    reconstruct(request.model, small, graph, plan, images, request.methods.reconstruct)


def _damages(request: Request, graph: ModelGraph, problem: PricedSpace, scores: Mapping[str, Tensor]) -> Damages:
    assert request.calibration is not None
    most = image_limit(graph)
    wanted = max(16, min(DAMAGE_IMAGES, DAMAGE_FLOPS // max(problem.dense.flops, 1), 16 * most))
    batches = torch.split(calibration_inputs(request.calibration, wanted, request.device), min(128, most))
    methods = request.methods
    mends = methods.reconstruct == "lstsq"
    return damages(
        request.model,
        graph,
        problem.space,
        scores,
        batches,
        refit=methods.refits,
        mends=mends,
        seed=request.options.seed,
    )
