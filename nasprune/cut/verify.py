"""`nasprune.verify`: the masked dense program and the cut model give the same outputs, and the cut model lives."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import nn

from nasprune.common.inputs import Inputs
from nasprune.common.states import own_tensors, state_tensors
from nasprune.common.untouched import twin
from nasprune.cost.flops import CostModel, measure
from nasprune.cut.compare import TOLERANCES, compare
from nasprune.cut.life import everywhere, is_large, whole_in_training, why_not
from nasprune.cut.plan import PrunePlan
from nasprune.cut.proof import AS_CUT, STRUCTURE, Proof
from nasprune.cut.stirred import distinct
from nasprune.cut.surgery import build
from nasprune.cut.tried import bisect, tried
from nasprune.cut.weight_masks import WeightMasks
from nasprune.errors import InputError, PlanError, TraceError, VerificationError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph


@dataclass(frozen=True)
class Proven:
    """A cut model that passed. frozen: groups and blocks that had to be left whole, with reasons."""

    model: nn.Module
    plan: PrunePlan
    proof: Proof


def verify(model: nn.Module, small: nn.Module, graph: ModelGraph, plan: PrunePlan) -> Proof:
    """Compares `small` with the dense `model` whose dropped channels and blocks are masked, in float64.

    Norms that mix channels are taken over the kept channels in the masked model. Where the code insists on float32, the
    comparison runs in float32 and says so. The FLOPs of `small` are counted on it and predicted by formula. Where
    `small` was refitted or trained after the cut, its structure is compared, with the dense model's weights in it.
    Weights that the plan masks are zero in the dense model, too, and must be exactly zero in `small` as it is.

    Returns:
        The proof; `ok` means error within tolerance, and counted = predicted FLOPs.

    Raises:
        PlanError: `small` has other tensors than the plan gives.
    """
    reference = build(model, graph, plan)
    as_cut, own = state_tensors(reference), state_tensors(small)
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in as_cut.items()}:
        raise PlanError("the small model has other tensors than this plan gives; pass the plan that made it")
    structure = twin(small)
    structure.load_state_dict(reference.state_dict())
    _copy_buffers(reference, structure)
    same = all(torch.equal(own[name], value) for name, value in as_cut.items())
    proof = replace(_verified(model, structure, graph, plan), compares=AS_CUT if same else STRUCTURE)
    filled = plan.masks.filled(submodule(small, graph.scope))
    if proof.ok and filled is not None:
        return replace(proof, ok=False, reason=f"{filled!r} is not zero where the plan masks it")
    return proof


def _copy_buffers(model: nn.Module, other: nn.Module) -> None:
    """Gives `other` the values of buffers that are not persistent, which training may have changed."""
    values = own_tensors(model)
    with torch.no_grad():
        for name, own in own_tensors(other).items():
            value = values.get(name)
            if value is not None and value.shape == own.shape and not torch.equal(value.to(own.device), own):
                own.copy_(value)


def _verified(
    model: nn.Module, small: nn.Module, graph: ModelGraph, plan: PrunePlan, on: Sequence[Inputs] | None = None
) -> Proof:
    """The proof of a small model that has the dense model's values."""
    match = compare(model, small, graph, plan, on)
    predicted = CostModel(graph).costs([plan.counts])[0]
    counted = measure(submodule(small, graph.scope), graph.example_inputs)
    reason = match.reason
    if match.ok and counted != predicted:
        reason = f"it costs {counted} where {predicted} was predicted"
    return Proof(
        ok=not reason,
        max_error=match.error,
        tolerance=TOLERANCES[match.dtype],
        dtype=str(match.dtype).removeprefix("torch."),
        flops=counted.flops,
        predicted_flops=predicted.flops,
        reason=reason,
        zeros=plan.masks.zeros,
    )


def prove(model: nn.Module, graph: ModelGraph, plan: PrunePlan) -> Proven:
    """Builds and verifies; what fails is found by bisection, left whole, and named in `proof.frozen`.

    The structure is proved on noise and on a copy of the model whose constant tensors (fresh norms, zero biases, tiny
    layer scales) are made random, so that a wrong slice of equal numbers cannot hide; then the model itself is
    verified on its example inputs. Then it is run wherever the dense model runs: see `nasprune.cut.life`. Of large
    images parts come first, and whole ones decide: there, too, the result is compared and run in training mode.

    Raises:
        VerificationError: the rest of the plan still fails, or counted and predicted FLOPs differ.
    """
    stirred = distinct(model)
    if is_large(graph.example_inputs):
        whole = [whole_in_training(graph.call)]
        for parts in (True, False):
            with suppress(InputError, TraceError):
                proven = _proven(model, stirred, graph, plan, parts=parts, life=True)
                if proven.proof.ok and not why_not(model, proven.model, whole):
                    return proven
    proven = _proven(model, stirred, graph, plan)
    if not proven.proof.ok:
        raise VerificationError(
            f"the cut model is not what it should be: {proven.proof.reason}; give example inputs that the model was "
            "made for, or report this model"
        )
    return proven


def _proven(
    model: nn.Module,
    stirred: nn.Module,
    graph: ModelGraph,
    plan: PrunePlan,
    *,
    parts: bool = False,
    life: bool = False,
) -> Proven:
    """What is left of the plan where its structure holds, verified.

    parts: see `tried`. life: whether parts of large images are enough to see that it lives.
    """

    def reason(names: Sequence[str]) -> str:
        small, match = tried(stirred, graph, restricted(plan, names), parts=parts)
        return match.reason or why_not(stirred, small, everywhere(graph.call, whole=graph.scope is None, parts=life))

    failed = bisect([*plan.keep, *plan.drop], reason)
    plan = restricted(plan, [name for name in [*plan.keep, *plan.drop] if name not in failed])
    small = build(model, graph, plan)
    return Proven(small, plan, replace(_verified(model, small, graph, plan, [graph.example_inputs]), frozen=failed))


def restricted(plan: PrunePlan, names: Sequence[str]) -> PrunePlan:
    """The part of `plan` that concerns the named groups and blocks; its masks where that is all of it."""
    chosen = set(names)
    return replace(
        plan,
        masks=plan.masks if chosen.issuperset((*plan.keep, *plan.drop)) else WeightMasks(),
        keep={name: kept for name, kept in plan.keep.items() if name in chosen},
        drop=tuple(name for name in plan.drop if name in chosen),
    )
