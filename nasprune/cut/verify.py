"""`nasprune.verify`: zero versus remove. The masked dense program and the cut model must give the same outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from nasprune.common.inputs import Inputs
from nasprune.common.outputs import tensors_of
from nasprune.common.randomness import own_randomness
from nasprune.common.untouched import held_tensors, in_eval, twin, undisturbed
from nasprune.cost.flops import CostModel, measure
from nasprune.cut.blame import innermost
from nasprune.cut.life import everywhere, first_line, is_large, resized, why_not
from nasprune.cut.plan import PrunePlan
from nasprune.cut.proof import AS_CUT, STRUCTURE, Proof
from nasprune.cut.reference import MaskedProgram, Precision, default_dtype
from nasprune.cut.surgery import build, draft
from nasprune.cut.weight_masks import WeightMasks
from nasprune.errors import NaspruneError, PlanError, VerificationError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph

NOT_FINITE = "the model gives no finite number on its example inputs"
PRECISION = ("dtype", "double", "Double")
"""Of which torch's message speaks where tensors of two precisions meet."""
Name = TypeVar("Name", bound=Hashable)
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True)
class Match:
    """How well two runs agree.

    error: largest difference relative to the largest reference output. reason: "" if ok. module: path of the one that
    did not run. tried: `False` where the dense model stood none of the inputs.
    """

    error: float
    dtype: torch.dtype
    reason: str = ""
    module: str | None = None
    tried: bool = True

    @property
    def ok(self) -> bool:
        return not self.reason


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
    as_cut = build(model, graph, plan).state_dict()
    own = small.state_dict()
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in as_cut.items()}:
        raise PlanError("the small model has other tensors than this plan gives; pass the plan that made it")
    structure = twin(small)
    structure.load_state_dict(as_cut)
    same = all(torch.equal(own[name], value) for name, value in as_cut.items())
    proof = replace(_verified(model, structure, graph, plan), compares=AS_CUT if same else STRUCTURE)
    filled = plan.masks.filled(submodule(small, graph.scope))
    if proof.ok and filled is not None:
        return replace(proof, ok=False, reason=f"{filled!r} is not zero where the plan masks it")
    return proof


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
    verified on its example inputs. Then it is run wherever the dense model runs: see `nasprune.cut.life`.

    Raises:
        VerificationError: the rest of the plan still fails, or counted and predicted FLOPs differ.
    """
    stirred = distinct(model)

    def reason(names: Sequence[str]) -> str:
        part = restricted(plan, names)
        small, match = tried(stirred, graph, part)
        return match.reason or why_not(stirred, small, everywhere(graph.call, whole=graph.scope is None))

    failed = bisect([*plan.keep, *plan.drop], reason)
    plan = restricted(plan, [name for name in [*plan.keep, *plan.drop] if name not in failed])
    small = build(model, graph, plan)
    proof = replace(_verified(model, small, graph, plan, [graph.example_inputs]), frozen=failed)
    if not proof.ok:
        raise VerificationError(
            f"the cut model is not what it should be: {proof.reason}; give example inputs that the model was made for, "
            "or report this model"
        )
    return Proven(small, plan, proof)


def trial(model: nn.Module, graph: ModelGraph, plan: PrunePlan) -> Match:
    """Builds `plan` and compares; a cut model that does not run is a failed match, not an error."""
    return tried(model, graph, plan)[1]


def tried(model: nn.Module, graph: ModelGraph, plan: PrunePlan) -> tuple[nn.Module, Match]:
    """The draft of a cut model and how it does: run as it is before it is compared in float64, which may be slow.

    Of large images a part is compared; where outputs differ there, the program may hold a size, and whole ones tell.
    """
    small, match = runs(model, graph, plan)
    if not match.ok:
        return small, match
    noise = noise_like(graph.example_inputs)
    try:
        if is_large(noise) and (on_a_part := compare(model, small, graph, plan, [resized(noise)])).ok:
            return small, on_a_part
        on_noise = compare(model, small, graph, plan, [noise])
        return small, on_noise if on_noise.tried else compare(model, small, graph, plan, [graph.example_inputs])
    except NaspruneError:
        raise
    except Exception as error:  # the reference runs what the user's code became, in ways that nobody foresaw
        return small, _raised(submodule(small, graph.scope), error)


def runs(model: nn.Module, graph: ModelGraph, plan: PrunePlan) -> tuple[nn.Module, Match]:
    """Builds `plan` and runs it on the example inputs, without a look at what it gives."""
    small: nn.Module = nn.Identity()
    part = small
    try:
        small = draft(model, graph, plan)
        part = submodule(small, graph.scope)
        with undisturbed(part):
            graph.example_inputs.clone().call(part)
    except NaspruneError:
        raise
    except Exception as error:  # surgery on the user's modules may fail in any way: that is what is being tried
        return small, _raised(part, error)
    return small, Match(0.0, torch.float64)


def _raised(part: nn.Module, error: Exception) -> Match:
    why = f"{type(error).__name__}: {first_line(error)}"
    return Match(float("inf"), torch.float64, why, innermost(part, error))


def compare(
    model: nn.Module, small: nn.Module, graph: ModelGraph, plan: PrunePlan, on: Sequence[Inputs] | None = None
) -> Match:
    """Zero versus remove, in float64, or in float32 where the code cannot run in float64; the worst of all inputs.

    on: by default the example inputs, and noise in their range. Inputs that the dense model cannot stand are left out.
    """
    on = on or (graph.example_inputs, noise_like(graph.example_inputs))
    match = _compared(model, small, graph, plan, on)
    if match.error > 0 and not match.ok and _remembers(submodule(model, graph.scope), graph.example_inputs):
        again = _compared(model, _after_a_call(small, graph), graph, plan, on)  # as the program was captured
        match = again if again.ok else match
    return match


def _compared(model: nn.Module, small: nn.Module, graph: ModelGraph, plan: PrunePlan, on: Sequence[Inputs]) -> Match:
    match = _compare(model, small, graph, plan, on, torch.float64)
    if match.error == float("inf") and any(word in match.reason for word in PRECISION):
        match = _compare(model, small, graph, plan, on, torch.float32)
    return match


def _remembers(model: nn.Module, inputs: Inputs) -> bool:
    """Whether a call leaves something behind in the model's attributes, such as a table or a hidden state."""
    copied = twin(model)
    before = [dict(vars(module)) for module in copied.modules()]
    try:
        with in_eval(copied), torch.no_grad():
            inputs.clone().call(copied)
    except Exception:  # the user's code may fail in any way
        return False
    after = (vars(module) for module in copied.modules())
    return any(
        held.keys() != own.keys() or any(held[name] is not value for name, value in own.items())
        for held, own in zip(after, before, strict=True)
    )


def _after_a_call(model: nn.Module, graph: ModelGraph) -> nn.Module:
    """A copy that was called once in its own precision, as the model was before its program was captured."""
    copied = twin(model)
    with suppress(Exception), in_eval(copied), torch.no_grad():
        graph.example_inputs.clone().call(submodule(copied, graph.scope))
    return copied


def _compare(
    model: nn.Module, small: nn.Module, graph: ModelGraph, plan: PrunePlan, on: Sequence[Inputs], dtype: torch.dtype
) -> Match:
    part, cut = submodule(model, graph.scope), submodule(small, graph.scope)
    state = {name: value.detach() for name, value in _tensors(part).items()}
    for name, stays in plan.masks.on_dense(part, graph, plan.keep).items():
        state[name] = state[name].masked_fill(~stays.to(state[name].device), 0)
    masked = MaskedProgram(graph, graph.unit_mask(plan.keep), plan.drop, dtype)

    def wanted(inputs: Inputs) -> list[Tensor]:
        with own_randomness(part):
            return masked.run(state, inputs.cast(dtype))

    matches: list[Match] = []
    left_out = NOT_FINITE
    for inputs in on:
        try:
            got = run(cut, inputs, dtype)  # first: a cut that does not run is found soon
            expected = wanted(inputs)
        except Exception as error:  # the user's code may fail in any way, once its sizes change or on noise
            left_out = f"{type(error).__name__}: {first_line(error)}"
            if _runs(partial(wanted, inputs)):
                return Match(float("inf"), dtype, left_out)
            continue
        if any(map(_says_something, expected)):
            matches.append(_match(expected, got, dtype))
    return max(matches, key=lambda match: match.error, default=Match(float("inf"), dtype, left_out, tried=False))


def _runs(call: Callable[[], object]) -> bool:
    try:
        call()
    except Exception:
        return False
    return True


def _match(expected: Sequence[Tensor], got: Sequence[Tensor], dtype: torch.dtype) -> Match:
    if [value.shape for value in expected] != [value.shape for value in got]:
        return Match(float("inf"), dtype, "the cut model returns other shapes")
    difference = max((_relative(a, b) for a, b in zip(expected, got, strict=True)), default=0.0)
    reason = "" if difference <= TOLERANCES[dtype] else f"outputs differ by {difference:.1e} of the largest"
    return Match(difference, dtype, reason)


def _says_something(value: Tensor) -> bool:
    """Whether a tensor has a finite number."""
    return not value.is_floating_point() or bool(value.isfinite().any())


def run(model: nn.Module, inputs: Inputs, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """The model's tensor outputs in flat order, computed on a copy in eval mode in `dtype`."""
    copied = twin(model, _cast(model, dtype))
    with default_dtype(dtype), undisturbed(copied), Precision(dtype):
        return tensors_of(inputs.clone().cast(dtype).call(copied))


def _cast(model: nn.Module, dtype: torch.dtype) -> dict[int, Tensor]:
    """For `twin`: parameters, buffers and tensors in attributes, of another precision, in this one."""
    found: dict[int, Tensor] = {}
    for value in itertools.chain(_tensors(model).values(), held_tensors(model)):
        if value.is_floating_point() and value.dtype != dtype:
            data = value.detach().to(dtype)
            found[id(value)] = nn.Parameter(data, value.requires_grad) if isinstance(value, nn.Parameter) else data
    return found


def _relative(expected: Tensor, got: Tensor) -> float:
    """The largest difference, relative to the largest number expected; infinite and missing numbers must be alike."""
    if not expected.numel():
        return 0.0
    if expected.is_complex() and got.is_complex():
        expected, got = torch.view_as_real(expected.resolve_conj()), torch.view_as_real(got.resolve_conj())
    if not expected.dtype.is_floating_point:
        return 0.0 if bool((expected == got).all()) else 1.0
    known = expected.isfinite()
    if not torch.equal(known, got.isfinite()):
        return float("inf")
    if not bool(known.any()):
        return 0.0
    scale = float(expected[known].abs().max())
    return float((expected - got)[known].abs().max()) / max(scale, 1e-300)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {
        **dict(model.named_buffers(remove_duplicate=False)),
        **dict(model.named_parameters(remove_duplicate=False)),
    }


def noise_like(example_inputs: Inputs, seed: int = 0) -> Inputs:
    """Noise of the same shapes in the range of each tensor, normal where that is a point; integers as they are."""
    generator = torch.Generator().manual_seed(seed)

    def noise(value: Tensor) -> Tensor:
        if not value.is_floating_point() or not value.numel():
            return value
        low, high = float(value.min()), float(value.max())
        if not low < high:
            return torch.randn(value.shape, generator=generator, device="cpu").to(value)
        return (low + (high - low) * torch.rand(value.shape, generator=generator, device="cpu")).to(value)

    return example_inputs.map(noise)


def distinct(model: nn.Module) -> nn.Module:
    """A copy in which every constant floating-point tensor has random values in [0.5, 1.5), the same on every call."""
    generator = torch.Generator().manual_seed(0)
    copied = twin(model)
    for value in _tensors(copied).values():
        if value.is_floating_point() and _is_constant(value):
            value.data.copy_(torch.rand(value.shape, generator=generator, device="cpu") + 0.5)
    return copied


def _is_constant(value: Tensor) -> bool:
    """Whether the tensor repeats one number; most that do not differ in the first two."""
    flat = value.reshape(-1)
    return len(flat) > 1 and bool(flat[0] == flat[1]) and bool((flat == flat[0]).all())


def restricted(plan: PrunePlan, names: Sequence[str]) -> PrunePlan:
    """The part of `plan` that concerns the named groups and blocks; its masks where that is all of it."""
    chosen = set(names)
    return replace(
        plan,
        masks=plan.masks if chosen.issuperset((*plan.keep, *plan.drop)) else WeightMasks(),
        keep={name: kept for name, kept in plan.keep.items() if name in chosen},
        drop=tuple(name for name in plan.drop if name in chosen),
    )


def bisect(names: Sequence[Name], reason: Callable[[Sequence[Name]], str]) -> dict[Name, str]:
    """Names that must go so that the rest passes. reason(names) is "" where a set passes.

    Halves are searched on their own; names that fail only together all go.
    """
    why = reason(names) if names else ""
    if not why:
        return {}
    if len(names) == 1:
        return {names[0]: f"a trial cut fails: {why}"}
    middle = len(names) // 2
    failed = {**bisect(names[:middle], reason), **bisect(names[middle:], reason)}
    rest = [name for name in names if name not in failed]
    if rest and (not failed or reason(rest)):
        failed |= dict.fromkeys(rest, f"a trial cut fails together with others: {why}")
    return failed
