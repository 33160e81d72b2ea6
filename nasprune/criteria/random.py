"""Random scores: the baseline that every criterion has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from nasprune.base import Criterion, ScoreContext
from nasprune.graph.model import CoupledGroup


class RandomScore(Criterion):
    """Uniform in [0, 1), fixed by the run's seed and the group's name."""

    def score(self, group: CoupledGroup, context: ScoreContext) -> Tensor:
        generator = context.generator(group)
        return torch.tensor([generator.random() for _ in range(group.width)], device="cpu")
