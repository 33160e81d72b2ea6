"""Other tools as rows of the benchmarks, cut to the same FLOPs as nasprune's."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from typing import ClassVar

from torch import Tensor, nn

from nasprune.cost.flops import measure
from nasprune.data import DataSplits
from nasprune.data.batches import batches
from nasprune.models.nets import BasicBlock
from nasprune.refit.recalibrate import calibration_batches, recalibrate
from nasprune.train.measures import accuracy

STEPS = 100
TWENTIETHS = tuple(0.05 * i for i in range(1, 21))
CONV = {"*": {"channels_ratio": TWENTIETHS, "kernel_size": (), "channel_divisor": 4}}
NORM = {"*": {"features_ratio": TWENTIETHS, "feature_divisor": 4}}


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
    once: ClassVar[bool] = False

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


@dataclass(frozen=True)
class ModelOptFastNAS:
    """NVIDIA ModelOpt's FastNAS: accuracy at every width of every layer, alone, then one threshold on what is lost.

    Widths come in twentieths rounded to four channels, for its usual 32 suits larger nets. Accuracy is taken on the
    1,024 calibration images. Its own count of FLOPs differs from fvcore's, so the share it is given is lowered until
    fvcore's count fits. Batch-norm statistics are re-estimated on the result as for the others.
    """

    name: str = "ModelOpt FastNAS"
    once: ClassVar[bool] = True

    @property
    def missing(self) -> str:
        return "" if find_spec("modelopt") else "nvidia-modelopt is not installed; `make bench-cifar` does that"

    def cut(self, model: nn.Module, example: Tensor, budget: int, data: DataSplits, seed: int) -> nn.Module:
        """A new network of at most `budget` FLOPs; `seed` plays no part."""
        loader = [(images, labels) for images, labels in batches(data.calibration, 128)]
        share = 100 * budget / measure(model, example).flops
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _silence():
            warnings.simplefilter("ignore")
            import modelopt.torch.prune as prune

            search = {
                "data_loader": loader,
                "collect_func": lambda batch: batch[0],
                "score_func": lambda net: accuracy(net, data.calibration),
                "checkpoint": f"{folder}/search.pth",  # what it measured is kept when the share is lowered
            }
            for slack in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0):
                small, _ = prune.prune(
                    copy.deepcopy(model),
                    mode=[("fastnas", {"nn.Conv2d": CONV, "nn.BatchNorm2d": NORM, "nn.Linear": NORM})],
                    constraints={"flops": f"{share - slack:.2f}%"},
                    dummy_input=example,
                    config=search,
                )
                if measure(small, example).flops <= budget:
                    break
        recalibrate(small, calibration_batches(data.calibration))
        return small.eval()


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing is printed meanwhile."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield
