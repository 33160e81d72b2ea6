"""Patterns of zeros in a layer's weight: anywhere, N of every M, whole blocks, whole kernels.

Weights are (groups, F, O) as `weight_matrix` gives them, F over input channels and, within each, kernel positions. A
pattern cuts the F features of every output into *units* of equal size: single weights, blocks, kernels. N:M and blocks
run along input channels at one kernel position, as the sparse formats of devices have them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from nasprune.errors import InputError

EXAMPLES = "'unstructured', '2:4', 'block:4' or 'kernel'"
_NM = re.compile(r"(\d+):(\d+)")
_BLOCK = re.compile(r"block:(\d+)")


@dataclass(frozen=True)
class Pattern:
    """Where zeros may stand.

    size: weights that stand or fall together; 0 is a whole kernel. n, m: of every m units next to each other n stay,
    for N:M patterns; else 0.
    """

    size: int = 1
    n: int = 0
    m: int = 0

    @classmethod
    def parse(cls, text: object) -> Pattern:
        """Reads "unstructured", "2:4", "block:4" or "kernel".

        Raises:
            InputError: it is something else.
        """
        if text == "unstructured":
            return cls()
        if text == "kernel":
            return cls(size=0)
        if isinstance(text, str) and (match := _NM.fullmatch(text)) and 0 < int(match[1]) < int(match[2]) <= 64:
            return cls(n=int(match[1]), m=int(match[2]))
        if isinstance(text, str) and (match := _BLOCK.fullmatch(text)) and 1 < int(match[1]) <= 64:
            return cls(size=int(match[1]))
        raise InputError(f"expected a pattern of zeros such as {EXAMPLES}, got {text!r}; N < M, blocks of 2 to 64")

    def __str__(self) -> str:
        if self.m:
            return f"{self.n}:{self.m}"
        return {0: "kernel", 1: "unstructured"}.get(self.size, f"block:{self.size}")

    def fits(self, features: int, kernel: int) -> bool:
        """Whether a layer of so many features, `kernel` for each input channel, can have it."""
        return (features // kernel) % (self.m or self.size or 1) == 0

    def units(self, features: int, kernel: int) -> Tensor:
        """The features of each unit, (units, size).

        Units that an N:M pattern counts together are `m` rows next to each other.
        """
        places = torch.arange(features, device="cpu").reshape(-1, kernel)  # input channels, positions
        if self.size == 0:
            return places
        step = self.m or self.size
        along = places.reshape(-1, step, kernel).transpose(1, 2)  # channel stretches, positions, step
        return along.reshape(-1, 1) if self.m else along.reshape(-1, self.size)

    def mask(self, scores: Tensor, kept: int, kernel: int) -> Tensor:
        """Which weights stay: the units with the highest scores, added up over a unit; (groups, F, O), boolean.

        Args:
            scores: (groups, F, O). kept: how many weights stay at most; an N:M pattern has a number of its own.
            kernel: positions of a kernel.
        """
        units = self.units(scores.shape[1], kernel)
        size = units.shape[1]
        worth = scores[:, units].sum(2) if size > 1 else scores[:, units[:, 0]]  # groups, units, O
        stays = torch.zeros_like(worth, dtype=torch.bool)
        if self.m:
            stretches = worth.reshape(len(worth), -1, self.m, worth.shape[2])
            best = stretches.topk(self.n, dim=2).indices
            stays.view_as(stretches).scatter_(2, best, value=True)
        else:
            stays.view(-1)[worth.reshape(-1).topk(min(kept // size, worth.numel())).indices] = True
        mask = torch.zeros_like(scores, dtype=torch.bool)
        mask[:, units.reshape(-1)] = stays.repeat_interleave(size, dim=1)
        return mask
