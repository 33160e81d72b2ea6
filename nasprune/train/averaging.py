"""An exponential average of a network's weights over training steps, which is steadier than any of them.

Polyak, Juditsky 1992, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30(4); as an
exponential average in Tarvainen, Valpola 2017, arXiv:1703.01780. As there the first steps count less: the decay rises
as (1 + t) / (10 + t) to its value.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nasprune.common.untouched import twin


class Average:
    """The average of a network's parameters and buffers. net: a network of its own that holds it, in eval mode."""

    def __init__(self, model: nn.Module, decay: float, *, steps: int = 0) -> None:
        self.net = twin(model).eval().requires_grad_(False)
        self.decay = decay
        self.steps = steps

    def add(self, model: nn.Module) -> None:
        """Takes the network's values after a step; whole numbers, such as counts of batches, are taken as they are."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for own, value in zip(_values(self.net), _values(model), strict=True):
                if own.is_floating_point() or own.is_complex():
                    own.lerp_(value.detach().to(own.device, own.dtype), share)
                else:
                    own.copy_(value)


def _values(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
