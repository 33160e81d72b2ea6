"""A search without widths and blocks: the network stays as it is, before zeros come into its weights."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from nasprune.base import EvaluationTask
from nasprune.cost.budget import Budget
from nasprune.cost.flops import CostModel
from nasprune.cut.verify import prove
from nasprune.graph.model import ModelGraph
from nasprune.run.exploration import CutCandidate, evaluate
from nasprune.run.journal import Journal
from nasprune.run.request import Request
from nasprune.run.rounds import Found
from nasprune.space.choices import SearchSpace
from nasprune.space.priced import PricedSpace
from nasprune.space.trials import Trial


def left_whole(request: Request, graph: ModelGraph, journal: Callable[[], Journal]) -> Found:
    """The dense network as the only trial, with the statistics that it has, proved as any other."""
    prices = request.options.shared.once("prices", lambda: CostModel(graph))
    problem = PricedSpace(graph, SearchSpace(()), prices, Budget()).with_scores(dict)
    decision = problem.space.largest()
    cost = problem.costs([decision])[0]
    candidate = CutCandidate(decision, cost, graph, {}, request.model, finished=request.model)
    validation = request.data.validation if request.data is not None else None
    task = EvaluationTask(graph, request.model, {}, problem, request.calibration, validation, str(request.device))
    record = journal()
    with record.dropped_if_empty(), request.phases.phase("searching"):
        known = record.round(0, {})
        if not known:
            start = perf_counter()
            score = evaluate(request.methods.new_evaluator(task), candidate)
            record.add(Trial(0, decision, candidate.cost, score, perf_counter() - start))
            known = record.round(0, {})
    with request.phases.phase("proving"):
        proven = prove(request.model, graph, candidate.plan)
    return Found(graph, problem, list(known), known[0], known[0].score, proven, {})
