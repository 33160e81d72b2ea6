"""Inputs and models whose numbers differ from each other, so that a wrong slice of equal numbers cannot hide."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nasprune.common.inputs import Inputs
from nasprune.common.untouched import twin


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
    for value in named_tensors(copied).values():
        if value.is_floating_point() and _is_constant(value):
            value.data.copy_(torch.rand(value.shape, generator=generator, device="cpu") + 0.5)
    return copied


def _is_constant(value: Tensor) -> bool:
    """Whether the tensor repeats one number; most that do not differ in the first two."""
    flat = value.reshape(-1)
    return len(flat) > 1 and bool(flat[0] == flat[1]) and bool((flat == flat[0]).all())


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {
        **dict(model.named_buffers(remove_duplicate=False)),
        **dict(model.named_parameters(remove_duplicate=False)),
    }
