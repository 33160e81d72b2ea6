"""What a scorer of operations is given: a copy of the supernet, gates on its candidates, and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from nasprune.base import Batch
from nasprune.common.losses import cross_entropy
from nasprune.common.outputs import tensors_of
from nasprune.common.untouched import twin, untouched
from nasprune.errors import InputError
from nasprune.space.choices import OpChoice
from nasprune.supernet.price.gates import gated
from nasprune.supernet.score.noise import noise_shares
from nasprune.supernet.score.paths import SinglePath, Site, on_path, shortened, sites
from nasprune.supernet.structure.structure import Structure


@dataclass(frozen=True)
class ScoringTask:
    """An `OpTask`. net: a copy of the structure's, made when it is asked for: some scorers never do."""

    structure: Structure
    train: Sequence[Batch]
    validation: Sequence[Batch]
    seed: int

    @classmethod
    def on_copy(
        cls, structure: Structure, train: Sequence[Batch], validation: Sequence[Batch], seed: int
    ) -> ScoringTask:
        """A task on a copy of the structure's net, in eval mode."""
        return cls(structure, train, validation, seed)

    @cached_property
    def net(self) -> nn.Module:
        return twin(self.structure.net).eval()

    @property
    def choices(self) -> tuple[OpChoice, ...]:
        return self.structure.choices

    @property
    def example(self) -> Tensor:
        return self.structure.inputs[0]

    def gated(self, gates: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        return gated(self.net, self.structure.mixed, self.choices, gates)

    def on_path(self, path: SinglePath) -> AbstractContextManager[None]:
        return on_path(self._sites, path)

    @cached_property
    def _sites(self) -> tuple[Site, ...]:
        found = sites(self.net, self.structure.mixed, self.choices)
        kind = next((one.dtype for one in self.net.parameters() if one.is_floating_point()), torch.float32)
        inputs = [one.to(kind) if one.is_floating_point() else one for one in self.structure.inputs]
        with untouched(self.net):
            return shortened(self.net, found, lambda: self.net(*inputs))

    def noise(self) -> Mapping[str, Tensor]:
        with untouched(self.net):
            return noise_shares(self.net, self.structure.mixed, self.choices, self.structure.inputs, self.seed)

    def loss(self, outputs: object, labels: Tensor) -> Tensor:
        return cross_entropy(first_output(outputs), labels)

    def logits(self, choice: OpChoice) -> Tensor | None:
        return self.structure.logits_in(self.net, choice)

    def shares(self, choice: OpChoice) -> Tensor | None:
        return self.structure.shares_in(self.net, choice)

    def edge_weight(self, choice: OpChoice) -> float | None:
        return self.structure.edge_weight_in(self.net, choice)

    def cost(self, choice: OpChoice) -> Tensor:
        return torch.tensor(
            [float(counts.fvcore) for counts in self.structure.prices.of_choice(choice)],
            dtype=torch.float64,
            device="cpu",
        )


def first_output(outputs: object) -> Tensor:
    """The first tensor (n, classes) of what a net gives: logits come before auxiliary ones.

    Raises:
        InputError: there is none.
    """
    found = next((value for value in tensors_of(outputs) if value.ndim == 2), None)
    if found is None:
        raise InputError("expected a net that gives logits (n, classes), alone or first of several outputs")
    return found
