"""Which recipe of fine-tuning brings a refitted network nearest to the dense one: where the defaults are from.

    python -m benchmarks.recipes [--seeds 1] [--first-seed 10] [--cases GLOB] [--rows GLOB] [--epochs 8] [--jobs N]

One search a case and seed as in `benchmarks.cifar`; then each recipe trains on all training images but 1,024, with the
dense network as the teacher, and is judged on these by the divergence from the dense network and by accuracy. Seeds are
others than those of `benchmarks.recover`, and test images are not looked at.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import torch
from rich.console import Console
from rich.table import Table

import nasprune
from benchmarks.cifar import ASSETS, CASES, EXAMPLE, SEEN, UNSEEN, Case, Images, trained
from benchmarks.rows import WIDTH, Failed, Record, add_options, worked
from nasprune.cost.flops import measure
from nasprune.data.augment import flip_and_shift


@dataclass(frozen=True)
class Row:
    """Polishing for some steps, then fine-tuning with these options; `None` is none."""

    name: str
    options: Mapping[str, object] | None = field(default_factory=dict)
    steps: int = 0


ROWS = (
    Row("refitted only", None),
    Row("polished only", None, 400),
    Row("defaults"),
    Row("outputs only", {"feature_share": 0.0}),
    Row("features at the low rate", {"lr": 0.01}),
    Row("AdamW", {"optimizer": "adamw", "lr": 1e-3}),
    Row("polished before, lowest rate", {"lr": 0.003}, 400),
)


@dataclass(frozen=True)
class Job:
    case: Case
    seed: int
    rows: tuple[Row, ...]
    epochs: int


@dataclass(frozen=True)
class Reached:
    """On unseen training images. divergence: in nats; accuracy in [0, 1]; seconds: of what came after the search."""

    case: str
    seed: int
    row: str
    divergence: float
    accuracy: float
    seconds: float


def reached(job: Job) -> list[Reached]:
    logging.disable(logging.WARNING)
    dense, images = trained(job.case.net, ASSETS), Images.read(ASSETS)
    data, unseen = images.by_seed(job.seed)
    order = torch.randperm(len(images.train), generator=torch.Generator().manual_seed(job.seed)).tolist()
    seen = sum(SEEN.values())  # dealt out before the unseen ones
    data_all = replace(data, train=images.train.subset(order[:seen] + order[seen + UNSEEN :]))
    budget = f"{measure(dense, EXAMPLE).flops * job.case.percent // 100}FLOPs"
    found = nasprune.search(dense, EXAMPLE, budget, data=data, seed=job.seed)
    with torch.no_grad():
        wanted = dense(unseen.images).log_softmax(1)
    outcomes = []
    for row in job.rows:
        start, net = time.perf_counter(), found
        if row.steps:
            net = replace(found, model=nasprune.polish(found, dense, data_all, steps=row.steps, seed=job.seed).model)
        small = net.model
        if row.options is not None:
            small = nasprune.finetune(
                net, data_all, teacher=dense, epochs=job.epochs, augment=flip_and_shift, seed=job.seed, **row.options
            )
        seconds = time.perf_counter() - start
        with torch.no_grad():
            given = small.eval()(unseen.images).log_softmax(1)
        divergence = float((wanted.exp() * (wanted - given)).sum(1).mean())
        right = float((given.argmax(1) == unseen.labels).float().mean())
        outcomes.append(Reached(str(job.case), job.seed, row.name, divergence, right, seconds))
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "recipes")
    parser.add_argument("--first-seed", type=int, default=10, help="the first of the seeds")
    parser.add_argument("--cases", default="*", help="glob, such as 'resnet20*'")
    parser.add_argument("--rows", default="*", help="glob, such as 'defaults'")
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    console, found = Console(width=WIDTH, highlight=False), list[Reached]()
    rows = tuple(row for row in ROWS if fnmatchcase(row.name, options.rows))
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    cases = [case for case in CASES if fnmatchcase(str(case), options.cases)]
    jobs = [Job(case, seed, rows, options.epochs) for seed in seeds for case in cases]
    record = Record(options.out, "recipes of fine-tuning, on training images that no step saw", lambda: _table(found))
    for job, outcome in worked(reached, jobs, at_once=options.jobs, threads=options.threads):
        if isinstance(outcome, Failed):
            console.print(f"{job.case}, seed {job.seed}: {outcome}")
            continue
        found += outcome
        record.add(*outcome)
    console.print(_table(found))


def _table(found: list[Reached]) -> Table:
    table = Table("net, FLOPs allowed", "seed", "recipe", "divergence, nats", "accuracy %", "seconds")
    for one in sorted(found, key=lambda one: (one.case, one.seed)):
        table.add_row(
            one.case, str(one.seed), one.row, f"{one.divergence:.4f}", f"{100 * one.accuracy:.1f}", f"{one.seconds:.0f}"
        )
    return table


if __name__ == "__main__":
    main()
