"""Zero versus remove: the masked dense program and the cut model, run on the same inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from nasprune.common.inputs import Inputs
from nasprune.common.outputs import tensors_of
from nasprune.common.randomness import own_randomness
from nasprune.common.untouched import held_tensors, in_eval, twin, undisturbed
from nasprune.cut.life import first_line
from nasprune.cut.plan import PrunePlan
from nasprune.cut.reference import MaskedProgram, Precision, default_dtype
from nasprune.cut.stirred import named_tensors, noise_like
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph

NOT_FINITE = "the model gives no finite number on its example inputs"
PRECISION = ("dtype", "double", "Double")
"""Of which torch's message speaks where tensors of two precisions meet."""
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
    state = {name: value.detach() for name, value in named_tensors(part).items()}
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
    for value in itertools.chain(named_tensors(model).values(), held_tensors(model)):
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
