"""What takes part in a training beside the optimizer, such as a strategy."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn


class Partner(Protocol):
    """Changes a network after every step of the optimizer."""

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        """Takes the network that will be trained, live, and how many steps the training takes."""

    def step(self) -> None:
        """After a step."""

    def keep(self) -> None:
        """Puts aside its own state, which belongs to the weights of now."""

    def back(self) -> None:
        """Takes back the state put aside last, since the weights of then are back."""
