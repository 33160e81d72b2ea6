"""Random scores: the baseline that every scorer has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import torch
from torch import Tensor

from nasprune.base import OpScorer, OpTask


class RandomOps(OpScorer):
    """Uniform in [0, 1), fixed by the task's seed and the choice's name."""

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        scores = {}
        for choice in task.choices:
            generator = Random(f"{task.seed}/{choice.name}")
            scores[choice.name] = torch.tensor([generator.random() for _ in choice.ops], device="cpu")
        return scores
