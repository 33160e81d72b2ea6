"""Other tools as rows of the benchmarks, cut to the same FLOPs as nasprune's."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from torch import Tensor, nn

from nasprune.cost.flops import measure
from nasprune.data import DataSplits
from nasprune.models import BasicBlock
from nasprune.recalibrate import calibration_batches, recalibrate

STEPS = 100


def shrink(step: Callable[[], object], flops: Callable[[], int], budget: int) -> int:
    """Calls `step` until `flops()` is at most `budget`; how often. Raises ValueError after 100 steps."""
    for taken in range(STEPS + 1):
        if flops() <= budget:
            return taken
        if taken < STEPS:
            step()
    raise ValueError(f"{flops()} FLOPs are left after {STEPS} steps, {budget} are allowed")


@dataclass(frozen=True)
class TorchPruning:
    """Torch-Pruning: Fang et al. 2023 (DepGraph), arXiv:2301.12900; L2 magnitude.

    Its graph breaks on shortcuts that pad channels, so in nets with such blocks it cuts only the channels inside them;
    elsewhere it may cut everything but the last layer. It takes no budget: as in its authors' scripts it cuts in small
    steps, ranking anew before each, until the FLOPs fit. That scores up to twelve points more than one cut at the ratio
    that fits, and finer steps score no more. Batch-norm statistics are re-estimated as nasprune does it and on the same
    images; without that tens of points are lost. ranked: one ranking over all layers, or equal shares of each.
    """

    name: str = "Torch-Pruning, L2, global"
    ranked: bool = True

    @property
    def missing(self) -> str:
        return "" if find_spec("torch_pruning") else "torch-pruning is not installed; `make bench-cifar` does that"

    def cut(self, model: nn.Module, example: Tensor, budget: int, data: DataSplits, seed: int) -> nn.Module:
        """A new network of at most `budget` FLOPs; `seed` plays no part."""
        small = copy.deepcopy(model)
        inner = {block.conv1 for block in small.modules() if isinstance(block, BasicBlock)}
        layers = [layer for layer in small.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch_pruning

            pruner = torch_pruning.pruner.BasePruner(
                small,
                example,
                importance=torch_pruning.importance.MagnitudeImportance(p=2),
                global_pruning=self.ranked,
                pruning_ratio=1.0,
                iterative_steps=STEPS,
                ignored_layers=[layer for layer in layers if layer not in inner] if inner else layers[-1:],
            )
            shrink(pruner.step, lambda: measure(small, example).flops, budget)
        recalibrate(small, calibration_batches(data.calibration))
        return small.eval()
