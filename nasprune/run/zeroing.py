"""The step of a search that puts zeros into the weights of what was cut, where the budget asks for it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from nasprune.base import EvaluationTask
from nasprune.common.untouched import twin
from nasprune.cost.latency import compare_latency
from nasprune.cut.plan import PrunePlan
from nasprune.cut.verify import verify
from nasprune.cut.weight_masks import count_nonzeros
from nasprune.errors import VerificationError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph
from nasprune.run.exploration import CutCandidate, evaluate
from nasprune.run.fitting import REFIT_IMAGES, harm_batches, refit_images
from nasprune.run.report import LayerOutcome, Sparsity
from nasprune.run.request import Request
from nasprune.run.rounds import Found
from nasprune.sparse.sparsify import Sparsified, ZeroBudget, sparsify

NO_FASTER = (
    "Zeros alone make nothing faster on a CPU: with them the network takes {:.4g} ms, without them {:.4g} ms, measured "
    "in turn. They make files smaller once packed, and help devices and programs that skip them."
)


@dataclass(frozen=True)
class Zeroed:
    """A search whose result has zeros, and what came of them. score: of the evaluator, with the zeros."""

    found: Found
    score: float
    sparsity: Sparsity
    notes: tuple[str, ...]


def zeroed(request: Request, found: Found, fitted: nn.Module) -> Zeroed:
    """Zeros in the weights of `fitted`, in place, proved, and scored.

    Raises:
        BudgetError: the budget is out of reach. VerificationError: the network is not what it should be.
    """
    assert request.spaces.zeros is not None
    assert request.sparsifier is not None
    assert request.calibration is not None
    graph, plan, part = found.graph, found.proven.plan, submodule(fitted, found.graph.scope)
    before, dense = twin(fitted), count_nonzeros(request.model)
    budget = request.budget
    elsewhere = count_nonzeros(fitted) - count_nonzeros(part)
    limit = budget.zeros_from(dense, found.problem.dense.flops)
    with request.phases.phase("pricing zeros") as pricing:
        made = sparsify(
            request.model,
            fitted,
            graph,
            plan,
            ZeroBudget(limit, found.best.cost.flops) if budget.weighs_zeros else ZeroBudget(limit - elsewhere),
            request.spaces.zeros,
            request.sparsifier,
            harm_batches(request, graph, found.problem.dense.flops),
            refit_images(request, graph, REFIT_IMAGES),
            seed=request.options.seed,
            memory=request.options.memory,
            variance=request.variance,
            on_price=pricing,
            on_step=pricing,
            once=partial(request.options.shared.once, _key(request, plan)),
        )
    plan = replace(plan, masks=made.masks)
    with request.phases.phase("proving"):
        proof = verify(request.model, fitted, graph, plan)
        if not proof.ok:
            raise VerificationError(f"the network with zeros is not what it should be: {proof.reason}")
    proven = replace(found.proven, plan=plan, proof=replace(proof, frozen=found.proven.proof.frozen))
    return Zeroed(
        found=replace(found, proven=proven),
        score=_score(request, found, fitted),
        sparsity=_sparsity(made, dense, fitted),
        notes=(*_speed(graph, before, fitted), *made.notes),
    )


def _key(request: Request, plan: PrunePlan) -> Hashable:
    """What the harms of zeros depend on, among searches that differ in the budget alone."""
    structure = tuple(sorted(plan.keep.items())), plan.drop
    return "zeros", structure, request.settings["space"], request.settings["sparsifier"]


def _score(request: Request, found: Found, fitted: nn.Module) -> float:
    """What the evaluator says of the network as it is now."""
    scores, validation = found.problem.scores(), request.data.validation if request.data is not None else None
    task = EvaluationTask(
        found.graph, request.model, scores, found.problem, request.calibration, validation, str(request.device)
    )
    best = found.best
    candidate = CutCandidate(best.decision, best.cost, found.graph, scores, request.model, finished=fitted)
    return evaluate(request.methods.new_evaluator(task), candidate)


def _sparsity(made: Sparsified, dense: int, fitted: nn.Module) -> Sparsity:
    layers = tuple(LayerOutcome(layer.layer, layer.size, layer.kept) for layer in made.layers)
    return Sparsity(dense, count_nonzeros(fitted), layers)


def _speed(graph: ModelGraph, before: nn.Module, after: nn.Module) -> list[str]:
    both = [submodule(net, graph.scope) for net in (after, before)]
    return [NO_FASTER.format(*compare_latency(both, graph.example_inputs))]
