"""Which candidates give noise: their outputs in evaluation, for the same input, change with the random numbers."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nasprune.common.calls import first_tensor
from nasprune.space.choices import OpChoice
from nasprune.supernet.find.mixed import MixedOp
from nasprune.supernet.score.scoring import seeded

ROUNDING = 1e-8


def noise_shares(
    net: nn.Module, mixed: Sequence[MixedOp], choices: Sequence[OpChoice], inputs: tuple[Tensor, ...], seed: int
) -> dict[str, Tensor]:
    """Choice -> (ops,), float64, in [0, 1]: how much of the variance of what a candidate gives is noise, at the most.

    1 for noise that hears nothing of its input, 0 for all that draws no random numbers. Call it where the net may run.
    """
    device = inputs[0].device
    read = _read(net, mixed, inputs, seed)
    found = {}
    for choice in choices:
        shares = torch.zeros(len(choice.ops), dtype=torch.float64, device="cpu")
        for number in choice.places:
            for op, path in enumerate(mixed[number].ops):
                if number in read:
                    share = _share(net.get_submodule(path), read[number], seed, device)
                    shares[op] = max(float(shares[op]), share)
        found[choice.name] = shares
    return found


def _read(net: nn.Module, mixed: Sequence[MixedOp], inputs: tuple[Tensor, ...], seed: int) -> dict[int, Tensor]:
    """What the candidates of each place read in one pass."""
    read: dict[int, Tensor] = {}

    def watch(number: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            read.setdefault(number, first_tensor(args, kwargs))

        return hook

    with torch.no_grad(), seeded(seed, inputs[0].device), ExitStack() as stack:
        for number, place in enumerate(mixed):
            for path in place.ops:
                handle = net.get_submodule(path).register_forward_pre_hook(watch(number), with_kwargs=True)
                stack.callback(handle.remove)
        net(*inputs)
    return read


def _share(module: nn.Module, received: Tensor, seed: int, device: torch.device) -> float:
    outputs = []
    with torch.no_grad():
        for draw in (seed, seed + 1):
            with seeded(draw, device):
                before = _generators(device)
                try:
                    outputs.append(module(received).double())
                except Exception:  # a module's own code may raise anything
                    return 0.0
                if _generators(device) == before:
                    return 0.0
    apart = float((outputs[0] - outputs[1]).square().mean()) / 2
    spread = float(torch.stack(outputs).var(correction=0))
    return min(1.0, apart / spread) if apart > ROUNDING * spread else 0.0


def _generators(device: torch.device) -> tuple[object, ...]:
    """Where torch's, Python's and NumPy's random numbers are, to be compared."""
    cuda = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    arrays: Any = np.random.get_state()  # noqa: NPY002 - the global state is what nets draw from
    return torch.get_rng_state().numpy().tobytes(), cuda, random.getstate(), arrays[1].tobytes(), arrays[2]


def without_noise(scores: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scores, those of noise so far below zero that they come last in their choice."""
    return {name: values * (1 - noise[name]) - noise[name] for name, values in scores.items()}
