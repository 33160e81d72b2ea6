"""What a search returns: the cut network, how it came about, and the report."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from torch import Tensor, nn

from nasprune.cost.uncounted import Uncounted
from nasprune.cost.units import percent
from nasprune.cut.normalised import over_fewer_inputs
from nasprune.cut.plan import PrunePlan
from nasprune.cut.selection import select
from nasprune.cut.width_records import stale
from nasprune.errors import InputError
from nasprune.graph.model import ModelGraph
from nasprune.run.charts import charts
from nasprune.run.cutting import Cut
from nasprune.run.notes import of_scores, of_zeros
from nasprune.run.page import cell
from nasprune.run.plots import Plot, plotted
from nasprune.run.report import FrontPoint, GroupOutcome, LayerTime, SearchReport
from nasprune.run.reporting import plain
from nasprune.run.request import Request
from nasprune.space.choices import Decision
from nasprune.space.trials import Trial, pareto_front

PACKAGES = ("nasprune", "torch", "fvcore", "nni", "optuna", "numpy", "networkx")
NOT_CUT = "Nothing was cut: the model keeps the budget as it is, or nothing smaller scored better."
NAMED = 5
"""How many numbers a note names."""


@dataclass(frozen=True)
class SearchResult:
    """The cut network in eval mode, the plan that made it, and the report. decision, graph, trials: how it came about.

    The model is new; the one that was searched is untouched. Where data was given, it is
    refitted on calibration images after the proof, or with reconstruct="none" its batch-norm statistics re-estimated.
    scores: of the units of each group, by which a plan picks those that stay. harms: choice -> option -> estimated
    harm, where a controller asked for them.
    """

    model: nn.Module = field(repr=False)
    plan: PrunePlan = field(repr=False)
    report: SearchReport
    decision: Decision
    graph: ModelGraph = field(repr=False)
    trials: tuple[Trial, ...] = field(repr=False)
    scores: Mapping[str, Tensor] = field(repr=False)
    harms: Mapping[str, Mapping[int, float]] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return plain(self.report)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return cell(self.report)

    def plot(self, name: str | None = None) -> Plot:
        """A chart: "trials" (cost against score), "curves" (harm against width), "blocks" (the same), "layers" (times).

        It shows itself in a notebook; `plot.save("trials.svg")` writes it. Without a name the first that there is.

        Raises:
            InputError: there is nothing to draw. UnknownNameError: there is no such chart here; names those that are.
        """
        return plotted(charts(self.report, self.trials, self.harms), name)

    def plan_of(self, trial: int) -> PrunePlan:
        """The plan of any trial, such as a point of `report.front`: `nasprune.build(model, result.graph, plan)`.

        It is not refitted, and proved only once `nasprune.verify` is asked.

        Raises:
            InputError: there is no such trial.
        """
        if not isinstance(trial, int) or not 0 <= trial < len(self.trials):
            raise InputError(
                f"expected the number of a trial from 0 to {len(self.trials) - 1}, got {trial!r}; take one from "
                "`result.trials` or `result.report.front`"
            )
        return select(self.graph, self.scores, self.trials[trial].decision)

    def measured(self, more: Mapping[str, float]) -> SearchResult:
        """The same with further measurements in the report."""
        return replace(self, report=replace(self.report, measured={**self.report.measured, **more}))


def result_of(
    request: Request,
    done: Cut,
    model: nn.Module,
    uncounted: Sequence[Uncounted],
    latency: Sequence[float],
    layers: Sequence[LayerTime],
    seconds: float,
) -> SearchResult:
    """The result of a search.

    done: the cut network and how it came about. model: the same with its final weights. uncounted: what the dense
    network runs and FLOPs do not count. latency: milliseconds of the dense and the cut network. layers: of their
    layers. seconds: of the whole search.
    """
    found = done.found
    plan, graph, proof = found.proven.plan, found.graph, found.proven.proof
    report = SearchReport(
        settings=dict(request.settings),
        budget=str(request.budget),
        dense=found.problem.dense,
        cut=found.best.cost,
        score=done.score,
        dense_score=found.dense_score,
        trials=len(found.trials),
        seconds=seconds,
        groups=outcomes(graph, plan),
        dropped_blocks=plan.drop,
        proof=proof,
        measured={"latency_ms dense": latency[0], "latency_ms cut": latency[1]},
        phases=request.phases.costs,
        versions=versions(),
        front=tuple(
            FrontPoint(trial.index, trial.decision.digest, trial.cost, trial.score)
            for trial in pareto_front(found.trials)
        ),
        notes=(
            *(() if plan.keep or plan.drop or plan.masks else (NOT_CUT,)),
            *(_left_out(item) for item in uncounted if not item.by_convention),
            *(f"{name} was left whole: {reason}" for name, reason in found.frozen.items()),
            *(found.aim.notes if found.aim is not None else []),
            *done.notes,
            *of_scores(request, found),
            *of_zeros(request, model, graph, plan),
            *_outdated(stale(request.original, graph, plan)),
            *_normalised(over_fewer_inputs(graph, plan)),
        ),
        uncounted=tuple(uncounted),
        layers=tuple(layers),
        sparsity=done.sparsity,
    )
    return SearchResult(
        model=model,
        plan=plan,
        report=report,
        decision=found.best.decision,
        graph=graph,
        trials=tuple(found.trials),
        scores=found.problem.scores(),
        harms=found.problem.damages_known(),
    )


def _left_out(item: Uncounted) -> str:
    return (
        f"`{item.operator}` at {item.site} takes {percent(item.share)} of the dense network's time and has no formula: "
        "the FLOPs, and any budget of them, leave it out."
    )


def _outdated(records: Sequence[str]) -> list[str]:
    if not records:
        return []
    more = f" and {len(records) - NAMED} more" if len(records) > NAMED else ""
    return [
        f"The network records of itself {', '.join(records[:NAMED])}{more}, and the plan cuts a width of that size; it "
        "is left as it is, since it is in doubt which width it means: set it yourself before you build on it."
    ]


def _normalised(paths: Sequence[str]) -> list[str]:
    if not paths:
        return []
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    verb = "normalises its weights" if len(paths) == 1 else "normalise their weights"
    named = [f"`{path}`" if path else "The network itself" for path in paths[:NAMED]]
    return [
        f"{', '.join(named)}{more} {verb} as the network runs, over inputs of which "
        "the plan leaves a part: the statistics are those of the part, so that more changes than what is cut. "
        "Fine-tune the network before you judge it."
    ]


def outcomes(graph: ModelGraph, plan: PrunePlan) -> tuple[GroupOutcome, ...]:
    """What the plan does to each group."""
    gone = {name for block in graph.blocks if block.name in plan.drop for name in block.groups}
    return tuple(
        GroupOutcome(
            group.name,
            group.width,
            0 if group.name in gone else len(plan.keep.get(group.name, range(group.width))),
            group.frozen_because,
        )
        for group in graph.groups
    )


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide a result."""
    return {"python": platform.python_version(), **{name: _installed(name) for name in PACKAGES}}


@cache
def _installed(name: str) -> str:
    """The version of a package; it is looked up once, since that reads files."""
    try:
        return version(name)
    except PackageNotFoundError:  # a checkout that was not installed
        return "not installed"
