"""Whether a network looks as torch makes it, before any training."""

from __future__ import annotations

from math import sqrt

from torch import Tensor, nn


def looks_initialised(model: nn.Module) -> bool:
    """Whether nothing tells that the model was trained.

    Training moves running statistics and norm weights; without running statistics, biases that begin as equal numbers,
    or weights beyond the bound 1 / sqrt(fan in) within which torch draws them.
    """
    means = [value for name, value in model.named_buffers() if name.endswith("running_mean")]
    if any(bool(value.any()) for value in means):
        return False
    for module in model.modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if not isinstance(weight, nn.Parameter):
            continue
        biased = isinstance(bias, nn.Parameter) and not _constant(bias)
        if weight.ndim == 1 and (biased or not _constant(weight)):
            return False
        if weight.ndim > 1 and not means and biased and not _within(weight):
            return False
    return True


def _constant(value: Tensor) -> bool:
    return bool((value == value.reshape(-1)[:1]).all())


def _within(weight: Tensor) -> bool:
    """Whether no value is above 1 / sqrt(fan in), within which torch draws initial ones."""
    return float(weight.detach().abs().max()) <= 1.001 / sqrt(max(1, weight[0].numel()))
