"""From a request to a network with its final structure and zeros: searched, refitted, thinned, in this order.

Where the budget limits only what is not zero, and widths and blocks may go as well, nothing says how much these should
take. A few shares of the FLOPs are tried, falling from all of them: each is searched, refitted and thinned to the
budget, and the one whose outputs are nearest to the dense network's on validation images is kept. The descent ends
where smaller shares are worse. The record of trials has the rounds of all shares, marked with the share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from torch import nn

from nasprune.base import EvaluationTask
from nasprune.cost.units import percent
from nasprune.errors import BudgetError
from nasprune.graph.model import ModelGraph
from nasprune.run.chosen import Divergences
from nasprune.run.exploration import CutCandidate
from nasprune.run.fitting import fitted
from nasprune.run.journal import Journal, Section
from nasprune.run.report import Sparsity
from nasprune.run.request import Request
from nasprune.run.rounds import Found, best_proved
from nasprune.run.whole import left_whole
from nasprune.run.zeroing import zeroed

SHARES = tuple(Fraction(percent, 100) for percent in (100, 95, 90, 80, 65, 50, 35, 25))
"""Of the FLOPs, that are tried in this order."""
WORSE = 2
"""Shares in a row that lead farther away, after which no more are tried."""


@dataclass(frozen=True)
class Cut:
    """A network with its final weights, but for polishing, and how it came about. score: of the evaluator."""

    found: Found
    model: nn.Module
    notes: tuple[str, ...]
    sparsity: Sparsity | None
    score: float


def cut(request: Request, graph: ModelGraph, journal: Callable[[], Journal]) -> Cut:
    """What the request asks for. journal: opened once the budget is known to be within reach.

    Raises:
        BudgetError: it is not. InputError, PluginError, VerificationError: as `nasprune.search`.
    """
    opened: list[Journal] = []

    def open_once() -> Journal:
        if not opened:
            opened.append(journal())
        return opened[0]

    try:
        if request.spaces.both and not request.budget.limits_structure:
            return _nearest(request, graph, open_once)
        return _once(request, graph, open_once, structure=request.spaces.structure is not None)
    except BaseException as error:
        for record in opened:
            if isinstance(error, BudgetError):
                record.discard()  # after all trials zeros, or times, showed that the budget is out of reach
            with record.dropped_if_empty():
                raise
        raise


def _once(request: Request, graph: ModelGraph, journal: Callable[[], Journal], *, structure: bool) -> Cut:
    found = (best_proved if structure else left_whole)(request, graph, journal)
    model = found.proven.model.eval()
    notes = tuple(fitted(request, model, found.proven.plan, found.refit))
    if request.spaces.zeros is None:
        return Cut(found, model, notes, None, found.best.score)
    sparse = zeroed(request, found, model)
    return Cut(sparse.found, model, (*notes, *sparse.notes), sparse.sparsity, sparse.score)


def _nearest(request: Request, graph: ModelGraph, journal: Callable[[], Journal]) -> Cut:
    """The share of the FLOPs from which zeros lead nearest to the dense network.

    journal: gives the same one each time.
    """
    tried: list[tuple[float, Fraction]] = []
    best: Cut | None = None
    refused: BudgetError | None = None
    sections: list[Section] = []
    for share in SHARES:
        asked = replace(request, budget=replace(request.budget, flops_share=share), on_progress=None)

        def section(mark: str = percent(float(share))) -> Section:
            start = sum(one.used for one in sections)
            sections.append(journal().section(start, {"share of the FLOPs": mark}))
            return sections[-1]

        try:
            one = _once(asked, graph, section, structure=share < 1)
        except BudgetError as error:
            refused = error
            if best is not None:
                break
            continue
        distance = _divergence(request, one)
        tried.append((distance, share))
        if min(tried)[1] == share:
            best = one
        elif len(tried) - tried.index(min(tried)) > WORSE:
            break
        if request.limits.stopped:
            break
    if best is None:
        assert refused is not None
        raise refused
    listed = ", ".join(f"{percent(float(share))}: {distance:.4f}" for distance, share in tried)
    note = (
        f"Shares of the FLOPs that widths and blocks leave, and the divergence from the dense network on validation "
        f"images once the weights had their zeros: {listed}. The nearest was taken."
    )
    return replace(best, notes=(note, *best.notes))


def _divergence(request: Request, one: Cut) -> float:
    """Mean KL of the outputs from the dense network's on validation images, in nats."""
    found = one.found
    validation = request.data.validation if request.data is not None else None
    task = EvaluationTask(
        found.graph, request.model, {}, found.problem, request.calibration, validation, str(request.device)
    )
    best = found.best
    candidate = CutCandidate(best.decision, best.cost, found.graph, {}, request.model, finished=one.model)
    return float(Divergences(task)(candidate).mean())
