"""Whether a cut model lives: it must run wherever the dense one does, in training too, not only where it was traced.

The captured program is that of one call in eval mode. A head that runs in training only, a part that `scope` leaves
out, a size that the code computes from the batch: none of these is in it. So the whole cut model is run there, and
where it fails while the dense model does not, the cut is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nasprune.common.inputs import Inputs
from nasprune.common.outputs import tensors_of
from nasprune.common.randomness import own_randomness
from nasprune.common.untouched import in_same_memory, twin

TOGETHER = "on two items at once"
OTHER_SIZE = "on images of another size"
CLOSE = 1e-2
"""Of the largest output: how far an item may be in a batch from what it is alone, in the model's own precision."""
LARGE = 128
"""Pixels a side from which on images are also tried smaller: most of a proof's time goes into pixels."""
SMALL = 64
"""Pixels a side that are left of a large image at least."""
STEP = 32
"""Of the sides of other images, in pixels."""


@dataclass(frozen=True)
class Situation:
    """A way to call a model.

    name: in words, to stand behind "fails". backward: gradients are asked for, too. smaller: inputs to try first; a
    model that stands these is not tried on the others.
    """

    name: str
    inputs: Inputs
    training: bool = False
    backward: bool = False
    smaller: Inputs | None = None


def as_given(inputs: Inputs) -> Situation:
    """The model as a whole, as the user calls it."""
    return Situation("as a whole", inputs)


def in_training(inputs: Inputs, *, backward: bool, parts: bool = True) -> Situation:
    """A step of training on two items. parts: parts of large images are enough, where the model takes them."""
    return _of_two("in training mode", inputs, training=True, backward=backward, parts=parts)


def whole_in_training(inputs: Inputs) -> Situation:
    """The way through the model in training mode, whole images and all: of one item, where it takes one."""
    return Situation("in training mode", doubled(inputs), training=True, smaller=_first(inputs))


def everywhere(inputs: Inputs, *, whole: bool, parts: bool = True) -> tuple[Situation, ...]:
    """All that a proof asks for. whole: the cut model as a whole has run on the inputs already. parts: as above."""
    return (
        *(() if whole else (as_given(inputs),)),
        in_training(inputs, backward=True, parts=parts),
        _of_two(TOGETHER, inputs, parts=parts),
        Situation(OTHER_SIZE, resized(inputs)),
    )


def _of_two(
    name: str, inputs: Inputs, *, training: bool = False, backward: bool = False, parts: bool = True
) -> Situation:
    """Called with two items; with `parts` of large images with their upper left parts, where the model takes them."""
    smaller = doubled(resized(inputs)) if parts and is_large(inputs) else None
    return Situation(name, doubled(inputs), training, backward, smaller)


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


def _first(inputs: Inputs) -> Inputs:
    """The first item alone, where there is a batch."""
    return inputs.map(lambda value: value[:1] if value.ndim > 1 else value)


def resized(inputs: Inputs) -> Inputs:
    """Images (n, c, h, w) of another size, other inputs as they are: large ones cut to a quarter, small ones repeated.

    What is left of a large image is its upper left part, with sides that are whole numbers of `STEP`.
    """
    large = is_large(inputs)

    def other(value: Tensor) -> Tensor:
        if not _is_image(value):
            return value
        if large:
            return value[..., : _quarter(value.shape[2]), : _quarter(value.shape[3])]
        return torch.cat([value, value], 2).repeat(1, 1, 1, 2)[..., : value.shape[2] + STEP, : value.shape[3] + STEP]

    return inputs.map(other)


def _is_image(value: Tensor) -> bool:
    return value.ndim == 4 and value.is_floating_point()


def is_large(inputs: Inputs) -> bool:
    """Whether there are images, and all are large."""
    images = [value for value in inputs.leaves if isinstance(value, Tensor) and _is_image(value)]
    return bool(images) and all(min(value.shape[2:]) >= LARGE for value in images)


def _quarter(side: int) -> int:
    return max(-(-side // (4 * STEP)) * STEP, SMALL)


def _failure(model: nn.Module, situation: Situation) -> str:
    """What goes wrong when a copy of the model is called so, "" where nothing does."""
    if situation.smaller is not None and not _failure(
        model, replace(situation, inputs=situation.smaller, smaller=None)
    ):
        return ""
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
    alone = _called(model, Situation("alone", _first(situation.inputs)))
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
