"""A detector whose backbone is cut: what refit, polish and fine-tuning give back, and what a teacher's features add.

    python -m benchmarks.detector [--seeds N] [--budget 35%] [--epochs 3] [--threads N]

Every seed draws scenes of 64 x 64 pixels with up to three discs, squares and crosses of any colour on noise, trains
torchvision's SSD on 1,024 of them with a small residual backbone, and cuts the backbone. What is printed is the F1
score of boxes, at an overlap of a half, on 512 scenes that nothing was trained or chosen on. The sizes of net, scenes
and training were set with seed 10.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from statistics import mean

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import Dataset

import nasprune
from nasprune.data.batches import batches
from nasprune.models.nets import BasicBlock

SIDE, KINDS = 64, 3
TRAINED, TESTED = 1024, 512
EPOCHS, RATE, BATCH = 20, 0.05, 32

Item = tuple[Tensor, dict[str, Tensor]]


class Scenes(Dataset[Item]):
    """Images (3, 64, 64), and boxes with the classes 1 to 3."""

    def __init__(self, count: int, seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.items = [_scene(rng) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        return self.items[index]


def _scene(rng: torch.Generator) -> Item:
    image = 0.3 * torch.randn(3, SIDE, SIDE, generator=rng)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    boxes, labels = [], []
    for _ in range(_whole(1, 4, rng)):
        size, kind = _whole(12, 29, rng), _whole(0, KINDS, rng)
        x, y = _whole(0, SIDE - size, rng), _whole(0, SIDE - size, rng)
        along, down = (columns - x + 0.5) / size - 0.5, (rows - y + 0.5) / size - 0.5
        inside = (along.abs() < 0.5) & (down.abs() < 0.5)
        shapes = (along**2 + down**2 < 0.25, inside, inside & ((along.abs() < 0.17) | (down.abs() < 0.17)))
        colour = torch.randn(3, 1, generator=rng)
        image[:, shapes[kind]] = colour / colour.norm() * 1.5 + 0.3 * torch.randn(3, 1, generator=rng)
        boxes.append([x, y, x + size, y + size])
        labels.append(kind + 1)
    return image, {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.tensor(labels)}


def _whole(low: int, high: int, rng: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=rng))


class Backbone(nn.Module):
    """A residual net of 6 blocks; maps of 48 and 64 channels at an eighth and a sixteenth of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.first, self.second = _stage(16, 32), _stage(32, 48)
        self.third = _stage(48, 64)
        self.out_channels = [48, 64]

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        middle = self.second(self.first(self.stem(x)))
        return OrderedDict([("middle", middle), ("last", self.third(middle))])


def _stage(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(BasicBlock(inputs, outputs, 2), BasicBlock(outputs, outputs, 1))


def detector() -> nn.Module:
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD

    anchors = DefaultBoxGenerator([[1], [1]], scales=[0.25, 0.4, 0.5])
    return SSD(Backbone(), anchors, (SIDE, SIDE), KINDS + 1, image_mean=[0, 0, 0], image_std=[1, 1, 1])


def score(model: nn.Module, scenes: Scenes) -> float:
    """The mean F1 score of the boxes of an image."""
    task, found = nasprune.Detection(), []
    model.eval()
    with torch.no_grad():
        for images, targets in batches(scenes, 64):
            found.append(task.judged(model, images, targets)[1])
    return float(torch.cat(found).mean())


def rungs(seed: int, budget: str, epochs: int, console: Console) -> dict[str, tuple[float, float]]:
    """What was done -> the score and the seconds."""
    seen, unseen = Scenes(TRAINED, 2 * seed), Scenes(TESTED, 2 * seed + 1)
    task, example = nasprune.Detection(), seen[0][0][None]
    torch.manual_seed(seed)
    reached: dict[str, tuple[float, float]] = {}

    def told(name: str, net: nn.Module, since: float) -> nn.Module:
        reached[name] = score(net, unseen), time.perf_counter() - since
        console.print(f"seed {seed}, {name}: {reached[name][0]:.1%}, {reached[name][1]:.0f} s")
        return net

    options = {"task": task, "seed": seed, "batch_size": BATCH}
    start = time.perf_counter()
    dense = told("dense", nasprune.finetune(detector(), seen, epochs=EPOCHS, lr=RATE, **options), start)
    given = {"scope": "backbone", "data": seen, "evaluator": "importance", "seed": seed}
    start = time.perf_counter()
    raw = nasprune.search(dense, example, budget, controller="uniform", criterion="l2", reconstruct="none", **given)
    told("equal widths by l2, no refit", raw.model, start)
    start = time.perf_counter()
    found = nasprune.search(dense, example, budget, **given)
    told("searched and refitted", found.model, start)
    start = time.perf_counter()
    told("and polished", nasprune.polish(found, dense, seen, seed=seed).model, start)
    for name, teacher in (("fine-tuned", None), ("fine-tuned with the teacher", dense)):
        start = time.perf_counter()
        told(name, nasprune.finetune(found, seen, epochs=epochs, teacher=teacher, **options), start)
    return reached


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them")
    parser.add_argument("--budget", default="35%", help="of the backbone")
    parser.add_argument("--epochs", type=int, default=3, help="of fine-tuning")
    parser.add_argument("--threads", type=int, help="of torch; by default its own choice")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    console = Console(width=120, highlight=False)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    reached = [rungs(seed, options.budget, options.epochs, console) for seed in seeds]
    table = Table("detector", "F1 %", "lowest to highest", "s", title=f"{options.budget} of the backbone's FLOPs")
    for name in reached[0]:
        scores = [100 * one[name][0] for one in reached]
        seconds = mean(one[name][1] for one in reached)
        table.add_row(name, f"{mean(scores):.1f}", f"{min(scores):.1f} to {max(scores):.1f}", f"{seconds:.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
