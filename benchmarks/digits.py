"""What the supernet experiments share: the digits in four parts, a trained supernet, scores, and spreads over seeds."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import mean

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nasprune import Size, Supernet, SupernetSpace
from nasprune.data import ArrayDataset, DataSplits
from nasprune.data.batches import batches
from nasprune.data.splits import split_indices
from nasprune.supernet.score.naming import op_scorer
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.train.training import architecture_of, train
from nasprune.supernet.trim.trimming import Data, scores_of

CHANNELS_IN, RESOLUTION, CLASSES = 1, 8, 10
PARTS = {"train": 1000, "calibration": 90, "validation": 210, "test": 497}
BATCH = 64
RESAMPLES = 2000

log = logging.getLogger("benchmarks")


@dataclass(frozen=True)
class Effort:
    """How much is computed; `QUICK` is for tests only.

    supernet_epochs, noise_epochs: of the bilevel training of the supernets of E2 and E4. architectures: trained for
    each space; steps: of each. random: draws of the random baseline. tuning: epochs of E5. timed: steps that E5 times.
    """

    supernet_epochs: int = 30
    noise_epochs: int = 12
    architectures: int = 10
    steps: int = 60
    random: int = 2
    tuning: int = 5
    timed: int = 15


FULL = Effort()
QUICK = Effort(supernet_epochs=1, noise_epochs=1, architectures=2, steps=3, random=1, tuning=1, timed=1)


def digits(seed: int) -> DataSplits:
    """1,000 images to train on, 210 to validate and 497 to test, images (1, 8, 8), classes in equal shares."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    whole = ArrayDataset(torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 8 - 1, torch.tensor(bunch.target))
    shares = [size / sum(PARTS.values()) for size in PARTS.values()]
    chosen = split_indices(whole.labels.tolist(), shares, seed)
    parts = {name: whole.subset(indices) for name, indices in zip(PARTS, chosen, strict=True)}
    return DataSplits("digits", num_classes=CLASSES, input_shape=(CHANNELS_IN, RESOLUTION, RESOLUTION), **parts)


def size(channels: int, layers: int) -> Size:
    return Size(channels, layers, CLASSES, CHANNELS_IN, RESOLUTION)


def looked_at(data: DataSplits) -> Data:
    """What scorers see: at most eight batches of training images, and the validation images."""
    first, second = (list(batches(part, BATCH)) for part in (data.train, data.validation))
    return Data([batch for batch in first[:8] if len(batch[1]) > 1], [batch for batch in second if len(batch[1]) > 1])


def trained_supernet(
    space: SupernetSpace, wanted: Size, data: DataSplits, epochs: int, seed: int, file: Path | None = None
) -> Structure:
    """A supernet of the space after bilevel training with a fast architecture: there are few steps to move it in.

    file: where its values are kept; those that are there already are read.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = space.supernet(wanted)
        example = torch.randn(4, *wanted.input_shape[1:])
    structure = Supernet.from_model(net, example, space=space).structure
    if file is not None and file.is_file():
        net.load_state_dict(load_file(file))
        return replace(structure, net=net.eval())
    start = time.perf_counter()
    trained = train(
        structure.net,
        data,
        architecture=lambda net: architecture_of(structure, net),
        epochs=epochs,
        warmup_epochs=epochs // 4,
        arch_lr=1e-2,
        seed=seed,
    )
    log.info("supernet of seed %d: %d epochs in %.0f s", seed, epochs, time.perf_counter() - start)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(trained.state_dict(), file)
    return replace(structure, net=trained)


def all_scores(
    structure: Structure, scorers: Sequence[str], data: DataSplits, seed: int
) -> dict[str, tuple[dict[str, Tensor], float]]:
    """Scorer -> its scores of every choice (ops,), and the seconds that they took."""
    found = {}
    seen = looked_at(data)
    for name in scorers:
        start = time.perf_counter()
        found[name] = scores_of(structure, op_scorer(name), seen, seed), time.perf_counter() - start
        log.info("seed %d: %s in %.1f s", seed, name, found[name][1])
    return found


@dataclass(frozen=True)
class Spread:
    """A mean over seeds with the 95 % interval of a percentile bootstrap over them."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    @property
    def plain(self) -> str:
        """Mean and interval without signs."""
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def spread(by_seed: Mapping[int, float]) -> Spread:
    """The bootstrap has its own seed, so that equal numbers give equal intervals."""
    values = [by_seed[seed] for seed in sorted(by_seed)]
    rng = Random(0)
    means = sorted(mean(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return Spread(mean(values), means[round(0.025 * RESAMPLES)], means[round(0.975 * RESAMPLES) - 1])


def negative_log_likelihood(net: nn.Module, data: ArrayDataset) -> tuple[float, float]:
    """Mean over the images in eval mode, and top-1 in [0, 1]."""
    net.eval()
    with torch.inference_mode():
        logits = net(data.images)
        loss = float(nn.functional.cross_entropy(logits, data.labels))
    return loss, float((logits.argmax(1) == data.labels).double().mean())
