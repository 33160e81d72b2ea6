"""Whether fine-tuning with its defaults ever hurts a refitted network, and what a teacher adds.

    python -m benchmarks.finetune [--cases GLOB] [--seeds N] [--jobs N] [--threads N] [--out DIR]

Every seed trains a dense network anew, searches it to 40 % of its FLOPs with the refit, and fine-tunes the result with
no option but the seed, and once more with the dense network as the teacher. Test images are looked at before and after;
a run hurts where it loses more than one standard error on them. Settings were chosen on validation images of seeds from
10 on.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from statistics import mean

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import nasprune
from benchmarks.cifar import ASSETS, Images
from benchmarks.rows import WIDTH, Failed, Record, add_options, worked
from nasprune.data import DataSplits, load_data
from nasprune.models.nets import ResidualNet, digits_net
from nasprune.train.measures import accuracy

FEW = 300


@dataclass(frozen=True)
class Case:
    """A network and its data. tuned: the part of the data that is fine-tuned on. epochs: of the dense training."""

    net: Callable[[], nn.Module]
    data: Callable[[int], DataSplits]
    tuned: Callable[[DataSplits], DataSplits]
    epochs: int
    seeds: int


def _few(data: DataSplits) -> DataSplits:
    return replace(data, train=data.train.subset(range(FEW)))  # type: ignore[attr-defined]


def _cifar(seed: int) -> DataSplits:
    """3,584 training, 512 calibration and 989 validation images."""
    train = Images.read(ASSETS)
    order = torch.randperm(len(train.train), generator=torch.Generator().manual_seed(seed)).tolist()
    parts = [train.train.subset(order[first:last]) for first, last in ((0, 3584), (3584, 4096), (4096, None))]
    return DataSplits("cifar10", *parts, train.test, 10, (3, 32, 32))


def _small_cifar_net() -> nn.Module:
    return ResidualNet(input_shape=(3, 32, 32), widths=(8, 16, 32), blocks=1, num_classes=10)


CASES: Mapping[str, Case] = {
    "digits": Case(digits_net, lambda seed: load_data("digits", seed=seed), lambda data: data, 10, 8),
    "digits, 300 images": Case(digits_net, lambda seed: load_data("digits", seed=seed), _few, 10, 8),
    "CIFAR subset": Case(_small_cifar_net, _cifar, lambda data: data, 12, 4),
}


@dataclass(frozen=True)
class Run:
    """Accuracies on the test part. error: the standard error of `before`."""

    dense: float
    before: float
    after: float
    taught: float
    error: float

    @property
    def hurts(self) -> bool:
        return min(self.after, self.taught) < self.before - self.error

    def __str__(self) -> str:
        told = f"dense {self.dense:.1%}, refitted {self.before:.1%} ± {self.error:.1%}, fine-tuned {self.after:.1%}"
        return f"{told}, with the teacher {self.taught:.1%}{'  HURTS' if self.hurts else ''}"


def run(case: Case, seed: int) -> Run:
    data = case.data(seed)
    torch.manual_seed(seed)
    dense = nasprune.finetune(case.net(), data, epochs=case.epochs, lr=0.1, seed=seed)
    found = nasprune.search(dense, torch.zeros(1, *data.input_shape), "40%", data=data, seed=seed)
    tuned = nasprune.finetune(found, case.tuned(data), seed=seed)
    taught = nasprune.finetune(found, case.tuned(data), seed=seed, teacher=dense)
    reached = [accuracy(net, data.test) for net in (dense, found.model, tuned, taught)]
    share = reached[1]
    return Run(*reached, math.sqrt(share * (1 - share) / len(data.test)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Row:
    """A run of a case with a seed."""

    case: str
    seed: int
    run: Run


def _worked(job: tuple[str, int]) -> Row:
    logging.disable(logging.WARNING)
    return Row(*job, run(CASES[job[0]], job[1]))


def table(rows: Sequence[Row]) -> Table:
    """One line a case: means over seeds, the worst change by fine-tuning, and how many runs hurt."""
    shown = Table(
        "data", "dense %", "refitted %", "fine-tuned %", "worst change", "with the teacher %", "runs that hurt"
    )
    for name in CASES:
        runs = [row.run for row in rows if row.case == name]
        if not runs:
            continue
        columns = [100 * mean(getattr(one, what) for one in runs) for what in ("dense", "before", "after", "taught")]
        worst = 100 * min(one.after - one.before for one in runs)
        hurt = f"{sum(one.hurts for one in runs)} of {len(runs)}"
        shown.add_row(name, *(f"{value:.1f}" for value in columns[:3]), f"{worst:+.1f}", f"{columns[3]:.1f}", hurt)
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "finetune", seeds=None)
    parser.add_argument("--cases", default="*", help="glob, such as 'digits*'")
    options = parser.parse_args(arguments)
    console = Console(width=WIDTH, highlight=False)
    jobs: list[tuple[str, int]] = []
    for name, case in CASES.items():
        if not fnmatchcase(name, options.cases):
            continue
        if name.startswith("CIFAR") and not (ASSETS / "cifar10_train5085.npz").is_file():
            console.print(f"{name} is left out: no images in {ASSETS}; set NASPRUNE_ASSETS to the folder with them")
            continue
        jobs += [(name, seed) for seed in range(options.seeds or case.seeds)]
    rows: list[Row] = []
    record, failed = Record(options.out, "fine-tuning with its defaults", lambda: table(rows)), False
    for (name, seed), row in worked(_worked, jobs, at_once=options.jobs, threads=options.threads):
        console.print(f"{name}, seed {seed}: {row if isinstance(row, Failed) else row.run}")
        if isinstance(row, Failed):
            failed = True
        else:
            rows.append(row)
            record.add(row)
    console.print(table(rows))
    sys.exit(failed or any(row.run.hurts for row in rows))


if __name__ == "__main__":
    main()
