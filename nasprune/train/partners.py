"""What takes part in a training beside the optimizer, such as a strategy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Memory:
    """What a partner remembers, for the disk. words: JSON, or nothing. tensors: by names that the words use."""

    words: str = ""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


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

    def written(self) -> Memory:
        """Its own state of now, for the disk."""

    def read(self, memory: Memory, steps: int) -> None:
        """Has begun, and goes on with what was written after so many steps, in another process perhaps."""
