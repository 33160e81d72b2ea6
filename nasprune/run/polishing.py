"""The last step of a search where it was asked for: the refitted network polished on images without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from time import monotonic

from torch import nn

from nasprune.cost.units import number_of
from nasprune.cut.plan import PrunePlan
from nasprune.errors import InputError
from nasprune.graph.model import ModelGraph
from nasprune.run.request import Request
from nasprune.train.polish import Polished, PolishStep, polish

NO_TIME = "Not polished: of the {:.0f} s that were given no time was left, since the search alone took {:.0f} s."


@dataclass(frozen=True)
class Recovered:
    """A network with its final weights. notes: what should be said; measured: for the report."""

    model: nn.Module
    notes: tuple[str, ...] = ()
    measured: Mapping[str, float] | None = None


@dataclass(frozen=True)
class _Cut:
    model: nn.Module
    plan: PrunePlan
    graph: ModelGraph


def check_polish(wanted: object, *, has_data: bool) -> None:
    """Raises InputError where polishing is asked for without data, or in another way than by a flag."""
    if wanted is not None and not isinstance(wanted, bool):
        raise InputError(f"`polish` must be True or False, got {wanted!r}; leave it out, or write polish=True")
    if wanted and not has_data:
        raise InputError("polishing needs images; give some with `data=` (`--data`), or leave `polish` out")


def polished(
    request: Request,
    graph: ModelGraph,
    model: nn.Module,
    plan: PrunePlan,
    started: float,
    on_step: Callable[[PolishStep], None] | None,
) -> Recovered:
    """The refitted `model` polished, if the request says so and something was cut. started: the search, `monotonic`."""
    until, cut = request.polish_until, plan.keep or plan.drop or plan.masks
    if until is None or request.data is None or not cut:
        return Recovered(model)
    seconds = started + until - monotonic()
    if seconds <= 0:
        return Recovered(model, (NO_TIME.format(until, until - seconds),))
    with request.phases.phase("polishing"):
        done = polish(
            _Cut(model, plan, graph),
            request.model,
            request.data,
            seed=request.options.seed,
            time_limit=seconds if seconds < inf else None,
            on_step=on_step,
            should_stop=request.options.should_stop,
        )
    if not done.steps:
        return Recovered(model, done.notes)
    measured = {"divergence before polish": done.before, "divergence after polish": done.after}
    return Recovered(done.model, (*done.notes, said(done)), {**measured, "polish seconds": done.seconds})


def said(done: Polished) -> str:
    """What came of polishing, in a sentence."""
    gain = f"from {done.before:.4f} to {done.after:.4f}" if done.kept else f"never below the {done.before:.4f} at first"
    return (
        f"Polished: {number_of(done.steps, 'step')} in {done.seconds:.0f} s took the divergence from the dense network "
        f"on held-out images {gain}."
    )
