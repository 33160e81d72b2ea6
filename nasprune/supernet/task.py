"""What a scorer of operations is given: a copy of the supernet, gates on its candidates, and data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from nasprune.base import Batch
from nasprune.errors import InputError
from nasprune.space import OpChoice
from nasprune.supernet.costs import OpCosts
from nasprune.supernet.gates import gated
from nasprune.supernet.mixed import MixedOp


@dataclass(frozen=True)
class ScoringTask:
    """An `OpTask`. find_logits, find_shares: of a choice in a given net."""

    net: nn.Module
    choices: tuple[OpChoice, ...]
    mixed: tuple[MixedOp, ...]
    costs: OpCosts
    example: Tensor
    train: Sequence[Batch]
    validation: Sequence[Batch]
    seed: int
    find_logits: Callable[[nn.Module, OpChoice], Tensor | None]
    find_shares: Callable[[nn.Module, OpChoice], Tensor | None]

    def gated(self, gates: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        return gated(self.net, self.mixed, self.choices, gates)

    def loss(self, outputs: object, labels: Tensor) -> Tensor:
        return functional.cross_entropy(first_output(outputs), labels)

    def logits(self, choice: OpChoice) -> Tensor | None:
        return self.find_logits(self.net, choice)

    def shares(self, choice: OpChoice) -> Tensor | None:
        return self.find_shares(self.net, choice)

    def cost(self, choice: OpChoice) -> Tensor:
        return torch.tensor([float(counts.fvcore) for counts in self.costs.of_choice(choice)], dtype=torch.float64)


def first_output(outputs: object) -> Tensor:
    """The first tensor (n, classes) of what a net gives: logits come before auxiliary ones.

    Raises:
        InputError: there is none.
    """
    found = next((leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.ndim == 2), None)
    if found is None:
        raise InputError("expected a net that gives logits (n, classes), alone or first of several outputs")
    return found
