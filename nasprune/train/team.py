"""Several processes that train one network together, each on its share of every batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over the processes that train together; itself where there is one."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return value
    found = value.clone()
    torch.distributed.all_reduce(found)
    return found / torch.distributed.get_world_size()


@dataclass(frozen=True)
class Team:
    """The processes of one training. fabric: has been launched in all of them."""

    fabric: Any

    @property
    def size(self) -> int:
        return int(self.fabric.world_size)

    @property
    def rank(self) -> int:
        return int(self.fabric.global_rank)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, order: Sequence[int], batch_size: int) -> list[int]:
        """What this process reads of an epoch, of every batch of all processes together an equal part.

        Images that cannot be divided equally are left out, and one alone, on which batch norm cannot train.
        """
        whole, found = batch_size * self.size, list[int]()
        for start in range(0, len(order), whole):
            together = order[start : start + whole]
            own = together[self.rank : len(together) - len(together) % self.size : self.size]
            found += own if len(own) > 1 or len(order) == 1 else []
        return found

    def mean(self, values: Sequence[float]) -> list[float]:
        """Each value's mean over the processes."""
        if self.size == 1:
            return list(values)
        given = torch.tensor(values, dtype=torch.float64, device="cpu").to(self.fabric.device)
        found: list[float] = self.fabric.all_reduce(given, reduce_op="mean").tolist()
        return found

    def agreed(self, value: T) -> T:
        """The value that the first process has."""
        if self.size == 1:
            return value
        found: T = self.fabric.broadcast(value)
        return found

    def align(self, *nets: nn.Module) -> None:
        """Gives the statistics of all networks the values that they have in the first process."""
        if self.size > 1:
            for net in nets:
                for buffer in net.buffers():
                    torch.distributed.broadcast(buffer, 0)


def batches_of(images: int, batch_size: int, team_size: int = 1) -> int:
    """How many batches `Team.share` gives each process in an epoch."""
    whole, rest = divmod(images, batch_size * team_size)
    return whole + (rest // team_size > 1 or (images == 1 and rest == 1))


def steps_of(images: int, batch_size: int, *, accumulate: int = 1, team_size: int = 1) -> int:
    """Steps of the optimizer in an epoch."""
    return math.ceil(batches_of(images, batch_size, team_size) / accumulate)
