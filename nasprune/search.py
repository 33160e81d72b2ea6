"""`nasprune.search`: a budget in, a smaller proven network out."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset

from nasprune import identity, registry
from nasprune.base import Controller, EvaluationTask, Evaluator
from nasprune.budget import Budget, parse_budget
from nasprune.checks import check_images, check_limits, check_weights
from nasprune.controllers.auto import Auto
from nasprune.cost.flops import CostModel
from nasprune.cost.latency import compare_latency
from nasprune.damage import Damages, damages
from nasprune.data import DataSplits, load_data
from nasprune.data.load import DataSource
from nasprune.data.splits import size_of
from nasprune.errors import InputError
from nasprune.evaluators.function import OwnFunction, evaluator_of
from nasprune.exploration import CutCandidate, Exploration, Limits, Progress, evaluate, own_randomness, seed_all
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph, as_tuple
from nasprune.graph.trace import trace
from nasprune.journal import Journal
from nasprune.plan import PrunePlan
from nasprune.recalibrate import calibration_batches, calibration_inputs, image_limit, recalibrate
from nasprune.reconstruct import check_method
from nasprune.reconstruct import reconstruct as reconstruct_in_place
from nasprune.repair import PricedSpace
from nasprune.report import FrontPoint, GroupOutcome, SearchReport, Trial, pareto_front
from nasprune.scoring import Scorer
from nasprune.space import Decision
from nasprune.verify import Proven, prove

TRIALS_AUTO = 1  # of the controller `auto`: the knapsack's decision alone
TRIALS_WITH_DATA = 100
TRIALS_WITHOUT_DATA = 1000
TRIAL_IMAGES = 256  # that a candidate is refitted on
REFIT_IMAGES = 1024  # that the result is refitted on
DAMAGE_IMAGES = 512
DAMAGE_FLOPS = 300 * 10**9  # of dense runs that measuring damages may take
PACKAGES = ("nasprune", "torch", "fvcore", "nni", "optuna", "numpy", "networkx")


@dataclass(frozen=True)
class SearchResult:
    """The cut network in eval mode, the plan that made it, and the report. decision, graph, trials: how it came about.

    The model is new; the one that was searched is untouched. Where data was given, it is
    refitted on calibration images after the proof, or with reconstruct="none" its batch-norm statistics re-estimated.
    """

    model: nn.Module = field(repr=False)
    plan: PrunePlan = field(repr=False)
    report: SearchReport
    decision: Decision
    graph: ModelGraph = field(repr=False)
    trials: tuple[Trial, ...] = field(repr=False)


@dataclass(frozen=True)
class _Parts:
    """What the names given to `search` stand for."""

    scorer: Scorer
    controller: type[Controller]
    evaluator: type[Evaluator]
    space: str
    space_options: Mapping[str, object]
    plugins: registry.Plugins
    seed: int
    data: DataSplits | None
    reconstruct: str


@dataclass(frozen=True)
class _Defaults:
    """What "auto" stands for."""

    criterion: str
    controller: str
    evaluator: str
    reconstruct: str


NOT_CUT = "Nothing was cut: the model keeps the budget as it is, or nothing smaller scored better."
WITH_DATA = _Defaults("obs", "auto", "accuracy", "lstsq")
WITHOUT_DATA = _Defaults("l2", "evolution", "importance", "none")


@dataclass(frozen=True)
class _Round:
    """One search over one graph, and the proof of its best plan."""

    graph: ModelGraph
    problem: PricedSpace
    trials: list[Trial]
    best: Trial
    dense_score: float
    proven: Proven


def search(
    model: nn.Module,
    example_inputs: Tensor | tuple[Tensor, ...],
    budget: str | Budget = "2GFLOPs",
    *,
    data: DataSource | None = None,
    criterion: str = "auto",
    controller: str = "auto",
    evaluator: str | Callable[[nn.Module], float] = "auto",
    space: str = "auto",
    reconstruct: str = "auto",
    seed: int = 0,
    trials: int | None = None,
    time_limit: float | None = None,
    out: str | Path | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    plugins: registry.Plugins = None,
    scope: str | None = None,
    space_options: Mapping[str, object] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    settings: Mapping[str, str] | None = None,
) -> SearchResult:
    """Finds the best smaller network within a budget, builds it, and proves that the cut is right.

    Args:
        model: any module that `nasprune.trace` takes; left as it is, with its mode and all random generators.
        example_inputs: a tensor or a tuple of positional arguments, batch first; only the first item is used.
        budget: "2GFLOPs", "60%", "5MParams", or several joined by commas.
        data: for evaluators that need it: a name, a `DataSplits`, `Dataset`, `DataLoader` or (inputs, labels) pair.
        criterion: name of a plugin, with options where wanted: "lp(p=1, reduce=max, normalise=layer)".
        controller, evaluator, space: names of plugins; the evaluator may be your function(model) -> number, higher is
            better, or its name: "file.py:function".
        reconstruct: "lstsq", "obs" or "none": closed-form refitting on calibration data, see `nasprune.reconstruct`.
            For all five, "auto" with data is the criterion `obs`, the controller `auto` (the decision of
            `sensitivity`, then evolution around it), the evaluator `accuracy`, the space `widths` and `lstsq`; without
            data `l2`, `evolution`, `importance`, `widths`, `none`.
        seed: fixes the result.
        trials: how many decisions are evaluated; by default as many as `time_limit` allows, else 1 for the controller
            `auto`, 100 for other controllers with an evaluator that needs data, and 1,000 with one that does not.
        time_limit: seconds after which no new trial starts.
        out: folder for `trials.jsonl`; a search with the same settings goes on where the file ends.
        include, exclude: globs on group and block names: only these, and not these.
        plugins: folders of plugin files.
        scope: the submodule to cut, for models that cannot be captured whole.
        space_options: further options of the search space, such as `{"divisor": 16}`.
        on_progress: called after every trial.
        settings: further names and values that belong to this run, kept in the report and the record of trials.

    Raises:
        BudgetError: the budget does not parse or cannot be met. InputError: another argument cannot be used, or `out`
        holds another run. TraceError: the model cannot be captured. PluginError: a plugin fails.
        VerificationError: the cut network is not what it should be.
    """
    started = time.monotonic()
    goal = parse_budget(budget)
    check_limits(trials, time_limit)
    defaults = WITHOUT_DATA if data is None else WITH_DATA
    criterion = defaults.criterion if criterion == "auto" else criterion
    controller = defaults.controller if controller == "auto" else controller
    own = evaluator_of(evaluator) if callable(evaluator) else None
    evaluator = own.name if own is not None else defaults.evaluator if evaluator == "auto" else str(evaluator)
    reconstruct = defaults.reconstruct if reconstruct == "auto" else reconstruct
    space = "widths" if space == "auto" else space
    check_method(reconstruct)
    if reconstruct != "none" and data is None:
        raise InputError(f"reconstruct={reconstruct!r} needs data; give some with `data=` (`--data`), or take 'none'")
    parts = _Parts(
        scorer=registry.scorer(criterion, plugins),
        controller=registry.load("controllers", controller, plugins),
        evaluator=own or registry.load("evaluators", evaluator, plugins),
        space=registry.find("search_spaces", space, plugins).name,
        space_options={**(space_options or {}), "include": tuple(include), "exclude": tuple(exclude)},
        plugins=plugins,
        seed=seed,
        data=load_data(data, seed=seed) if data is not None else None,
        reconstruct=reconstruct,
    )
    if parts.evaluator.needs_data and parts.data is None:
        raise InputError(f"the evaluator {evaluator!r} needs data; give some with `data=` (`--data`)")
    parts.scorer.check_data(parts.data is not None)
    inputs = tuple(value[:1] for value in as_tuple(example_inputs))
    check_weights(model)
    if parts.data is not None:
        check_images(parts.data, inputs)
    chosen = {
        "model": type(model).__name__,
        "weights": identity.of_model(model),
        "inputs": ", ".join(str(list(value.shape)) for value in inputs),
        "budget": str(goal),
        "data": parts.data.name if parts.data is not None else "none",
        "criterion": criterion,
        "controller": controller,
        "evaluator": evaluator,
        "space": space,
        "reconstruct": reconstruct,
        **{f"space {name}": str(value) for name, value in parts.space_options.items()},
        "scope": scope or "all",
        "seed": str(seed),
        **(settings or {}),
    }
    if parts.data is not None:
        chosen["images"] = _images_digest(parts.data, seed, model)
    if issubclass(parts.evaluator, OwnFunction):
        chosen["evaluator's code"] = identity.of_code(parts.evaluator.function)
    if trials is None and time_limit is None:
        trials = TRIALS_WITH_DATA if parts.evaluator.needs_data else TRIALS_WITHOUT_DATA
        trials = TRIALS_AUTO if issubclass(parts.controller, Auto) else trials
    with own_randomness(model):
        graph = trace(model, inputs, scope, rules=registry.op_rules(plugins))
        prices = CostModel(graph)
        journal: Journal | None = None
        frozen: dict[str, str] = {}
        for number in count():
            graph = graph.frozen(frozen)
            problem = _priced(graph, prices, parts, goal)
            journal = journal or Journal(Path(out) if out is not None else None, chosen)
            limits = Limits(trials, time_limit)
            with journal.dropped_if_empty():
                done = _round(model, graph, problem, parts, limits, journal, number, frozen, on_progress)
            if not done.proven.proof.frozen:
                break
            frozen = {**frozen, **done.proven.proof.frozen}
        both = [submodule(model, scope), submodule(done.proven.model, scope)]
        latency = compare_latency(both, graph.example_inputs)
        small = done.proven.model.eval()
        refit_notes: list[str] = []
        if parts.data is not None:
            device = next(small.parameters()).device
            if reconstruct == "none":
                recalibrate(small, calibration_batches(_calibration(parts.data), device))
            else:
                images = calibration_inputs(_calibration(parts.data), min(REFIT_IMAGES, image_limit(graph)), device)
                refit_notes = reconstruct_in_place(model, small, graph, done.proven.plan, images, reconstruct)
    report = _report(done, goal, chosen, frozen, refit_notes, latency, time.monotonic() - started)
    return SearchResult(small, done.proven.plan, report, done.best.decision, graph, tuple(done.trials))


def _images_digest(data: DataSplits, seed: int, model: nn.Module) -> str:
    """The same for the same data, with random transforms too."""
    with own_randomness(model):
        seed_all(seed, model)
        return identity.of_data(data)


def _priced(graph: ModelGraph, prices: CostModel, parts: _Parts, goal: Budget) -> PricedSpace:
    options = {name: value for name, value in parts.space_options.items() if value != ()}
    space = registry.search_space(graph, parts.space, plugins=parts.plugins, **options)
    problem = PricedSpace(graph, space, prices, goal)
    problem.require_feasible()
    return problem


def _round(
    model: nn.Module,
    graph: ModelGraph,
    problem: PricedSpace,
    parts: _Parts,
    limits: Limits,
    journal: Journal,
    number: int,
    frozen: Mapping[str, str],
    on_progress: Callable[[Progress], None] | None,
) -> _Round:
    """Scores, searches and proves."""
    device = str(next((value.device for value in model.parameters()), torch.device("cpu")))
    calibration = _calibration(parts.data) if parts.data is not None else None
    score = cache(lambda: parts.scorer.scores(model, graph, seed=parts.seed, data=calibration))
    problem = problem.with_scores(score)
    validation = parts.data.validation if parts.data is not None else None
    refit: Callable[[nn.Module, PrunePlan], object] | None = None
    if calibration is not None:
        problem = problem.with_damages(lambda: _damages(model, graph, problem, parts, score(), device))
        if parts.reconstruct != "none":
            images = calibration_inputs(calibration, min(TRIAL_IMAGES, image_limit(graph)), device)
            refit = partial(_refit, model, graph, images, parts.reconstruct)
    controller = parts.controller(problem, seed=parts.seed)  # before anything is scored: it may lack a package
    scores = score()
    task = EvaluationTask(graph, model, scores, problem, calibration, validation, device)
    evaluator = parts.evaluator(task)

    def candidate(decision: Decision) -> CutCandidate:
        return CutCandidate(decision, problem.costs([decision])[0], graph, scores, model, refit)

    exploration = Exploration(problem, controller, evaluator, candidate, parts.seed)
    recorded = journal.round(number, frozen)
    if journal.closed(number):
        limits = Limits(len(recorded), None)
    trials = exploration.run(limits, journal, recorded, on_progress)
    best = max(trials, key=lambda trial: trial.score)
    dense_score = evaluate(evaluator, candidate(problem.space.largest()))
    return _Round(graph, problem, trials, best, dense_score, prove(model, graph, candidate(best.decision).plan))


def _calibration(data: DataSplits) -> Dataset[tuple[Tensor, int]]:
    """The calibration images, and the training images where these are few; never validation or test images."""
    few = size_of(data.calibration) < REFIT_IMAGES
    return ConcatDataset([data.calibration, data.train]) if few else data.calibration


def _refit(model: nn.Module, graph: ModelGraph, images: Tensor, method: str, small: nn.Module, plan: PrunePlan) -> None:
    reconstruct_in_place(model, small, graph, plan, images, method)


def _damages(
    model: nn.Module,
    graph: ModelGraph,
    problem: PricedSpace,
    parts: _Parts,
    scores: Mapping[str, Tensor],
    device: str,
) -> Damages:
    assert parts.data is not None
    wanted = max(16, min(DAMAGE_IMAGES, DAMAGE_FLOPS // max(problem.dense.flops, 1), 16 * image_limit(graph)))
    images = calibration_inputs(_calibration(parts.data), wanted, device)
    batches = torch.split(images, min(128, image_limit(graph)))
    refit, mends = parts.reconstruct != "none", parts.reconstruct == "lstsq"
    return damages(model, graph, problem.space, scores, batches, refit=refit, mends=mends, seed=parts.seed)


def _report(
    done: _Round,
    goal: Budget,
    chosen: Mapping[str, str],
    frozen: Mapping[str, str],
    refit_notes: Sequence[str],
    latency: Sequence[float],
    seconds: float,
) -> SearchReport:
    plan = done.proven.plan
    gone = {name for block in done.graph.blocks if block.name in plan.drop for name in block.groups}
    groups = tuple(
        GroupOutcome(
            group.name,
            group.width,
            0 if group.name in gone else len(plan.keep.get(group.name, range(group.width))),
            group.frozen_because,
        )
        for group in done.graph.groups
    )
    return SearchReport(
        settings=dict(chosen),
        budget=str(goal),
        dense=done.problem.dense,
        cut=done.best.cost,
        score=done.best.score,
        dense_score=done.dense_score,
        trials=len(done.trials),
        seconds=seconds,
        groups=groups,
        dropped_blocks=plan.drop,
        proof=done.proven.proof,
        measured={"latency_ms dense": latency[0], "latency_ms cut": latency[1]},
        versions=_versions(),
        front=tuple(
            FrontPoint(trial.index, trial.decision.digest, trial.cost, trial.score)
            for trial in pareto_front(done.trials)
        ),
        notes=(
            *(() if plan.keep or plan.drop else (NOT_CUT,)),
            *(f"{name} was left whole: {reason}" for name, reason in frozen.items()),
            *refit_notes,
        ),
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that was not installed
            found[name] = "not installed"
    return found
