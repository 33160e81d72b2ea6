"""What is wrong with the arguments of a search, said before anything runs."""

from __future__ import annotations

from math import inf

from torch import nn

from nasprune.common.inputs import Inputs
from nasprune.data import DataSplits
from nasprune.data.batches import batches
from nasprune.errors import InputError


def check_limits(trials: int | None, time_limit: float | None) -> None:
    """Raises InputError unless both are above zero, and finite, where they are given."""
    if trials is not None and trials < 1:
        raise InputError(f"`trials` (--trials) must be at least 1, got {trials}")
    if time_limit is not None and not 0 < time_limit < inf:  # NaN is neither
        raise InputError(
            f"`time_limit` (--time-limit) must be a number of seconds above 0, got {time_limit:g}; "
            "leave it out for none"
        )


def check_weights(model: nn.Module) -> None:
    """Raises InputError where a parameter holds what is no number."""
    for name, value in model.named_parameters():
        if not bool(value.detach().isfinite().all()):
            raise InputError(f"the model's {name!r} holds NaN or infinite values; give weights that are finite")


def check_images(data: DataSplits, inputs: Inputs) -> None:
    """Raises InputError unless the model takes images alone, and those of the data have the example's shape."""
    if len(inputs.tensors) != 1 or len(inputs.leaves) != 1:
        raise InputError(
            f"data gives images alone, the model takes {len(inputs.leaves)} inputs ({inputs}); search without data"
        )
    images, _ = next(batches(data.calibration, 1))
    expected, got = tuple(inputs.tensors[0].shape[1:]), tuple(images.shape[1:])
    if expected != got:
        raise InputError(
            f"the example input has items of shape {expected}, data {data.name!r} gives {got}; give example inputs of "
            "the shape of the data, or other data"
        )
