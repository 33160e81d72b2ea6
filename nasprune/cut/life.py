"""Whether a cut model lives: it must run wherever the dense one does, in training too, not only where it was traced.

The captured program is that of one call in eval mode. A head that runs in training only, a part that `scope` leaves
out, a size that the code computes from the batch: none of these is in it. So the whole cut model is run there, and
where it fails while the dense model does not, the cut is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nasprune.common.inputs import Inputs
from nasprune.common.outputs import tensors_of
from nasprune.common.randomness import own_randomness
from nasprune.common.untouched import in_same_memory, twin

TOGETHER = "on two items at once"
CLOSE = 1e-2
"""Of the largest output: how far an item may be in a batch from what it is alone, in the model's own precision."""
WIDER = 32
"""Pixels by which other images are larger."""


@dataclass(frozen=True)
class Situation:
    """A way to call a model. name: in words, to stand behind "fails". backward: gradients are asked for, too."""

    name: str
    inputs: Inputs
    training: bool = False
    backward: bool = False


def as_given(inputs: Inputs) -> Situation:
    """The model as a whole, as the user calls it."""
    return Situation("as a whole", inputs)


def in_training(inputs: Inputs, *, backward: bool) -> Situation:
    """A step of training on two items."""
    return Situation("in training mode", doubled(inputs), training=True, backward=backward)


def everywhere(inputs: Inputs, *, whole: bool) -> tuple[Situation, ...]:
    """All that a proof asks for. whole: the cut model as a whole has run on the inputs already."""
    return (
        *(() if whole else (as_given(inputs),)),
        in_training(inputs, backward=True),
        Situation(TOGETHER, doubled(inputs)),
        Situation("on larger images", enlarged(inputs)),
    )


def why_not(dense: nn.Module, small: nn.Module, situations: Sequence[Situation]) -> str:
    """The first situation that `dense` stands and `small` does not, with the reason; "" where there is none."""
    for situation in situations:
        reason = _failure(small, situation)
        if reason and not _failure(dense, situation):
            return f"{situation.name}: {reason}"
    return ""


def doubled(inputs: Inputs) -> Inputs:
    """The first item and a second one, the mirror image of it, where there is a batch."""

    def two(value: Tensor) -> Tensor:
        return torch.cat([value[:1], value[:1].flip(-1)]) if value.ndim > 1 else value

    return inputs.map(two)


def enlarged(inputs: Inputs) -> Inputs:
    """Images (n, c, h, w) with more pixels at the lower and right border; other inputs as they are."""

    def wider(value: Tensor) -> Tensor:
        if value.ndim != 4 or not value.is_floating_point():
            return value
        return torch.cat([value, value], 2).repeat(1, 1, 1, 2)[..., : value.shape[2] + WIDER, : value.shape[3] + WIDER]

    return inputs.map(wider)


def _failure(model: nn.Module, situation: Situation) -> str:
    """What goes wrong when a copy of the model is called so, "" where nothing does."""
    try:
        outputs = _called(model, situation)
        if situation.name == TOGETHER and not _as_alone(model, situation, outputs):
            return "an item gives other outputs than alone"
    except Exception as error:  # the user's code may fail in any way: that is what is being tried
        return f"{type(error).__name__}: {first_line(error)}"
    return ""


def _called(model: nn.Module, situation: Situation) -> list[Tensor]:
    copied = twin(model, in_same_memory(model)).train(situation.training)
    with own_randomness(model), torch.set_grad_enabled(situation.backward):
        outputs = tensors_of(situation.inputs.clone().call(copied))
        if situation.backward:
            losses = [_real(value).float().mean() for value in outputs if value.requires_grad]
            if losses:
                torch.autograd.backward(losses)
    return outputs


def _real(value: Tensor) -> Tensor:
    return value.abs() if value.is_complex() else value


def _as_alone(model: nn.Module, situation: Situation, together: Sequence[Tensor]) -> bool:
    """Whether the first of two items gives what it gives alone."""
    first = situation.inputs.map(lambda value: value[:1] if value.ndim > 1 else value)
    alone = _called(model, Situation("alone", first))
    pairs = zip(together, alone, strict=False)
    return all(_near(a[:1], b) for a, b in pairs if a.ndim and b.ndim and len(b) == 1 < len(a))


def _near(got: Tensor, expected: Tensor) -> bool:
    if got.shape != expected.shape or not expected.is_floating_point():
        return True
    difference = (got - expected).abs()[expected.isfinite()]
    scale = expected.abs()[expected.isfinite()]
    return not difference.numel() or float(difference.max()) <= CLOSE * max(float(scale.max()), 1e-30)


def first_line(error: Exception) -> str:
    """What a message begins with."""
    return next((line.strip()[:200] for line in str(error).splitlines() if line.strip()), "no message")
