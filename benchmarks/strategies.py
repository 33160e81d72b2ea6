"""Strategies at equal training cost, at 50 % and 25 % of the FLOPs, with the small net from scratch.

    python -m benchmarks.strategies [--nets digits,resnet20] [--seeds 3] [--rows GLOB] [--jobs N] [--threads N]
        [--device cuda] [--out DIR]

Every row starts from the same trained network and takes the same number of SGD steps with the same cosine and labels;
`scratch` forgets the weights first. Beside them stands what a search with its refit gives, fine-tuned for as many
steps. All settings are the strategies' defaults but the strength of slimming, which the paper chose for far longer
trainings. The test images are looked at once a row. The nets: a small residual net, which is trained on digits for each
seed, and CIFAR's ResNet-20, whose images (4,573 of the 5,085) are mirrored and shifted.
"""

from __future__ import annotations

import argparse
import copy
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from statistics import mean

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional

import nasprune
from benchmarks.cifar import ASSETS, Images, trained
from benchmarks.rows import WIDTH, Failed, Record, add_options, worked
from nasprune.data import DataSplits, load_data
from nasprune.data.augment import flip_and_shift
from nasprune.data.batches import batches
from nasprune.data.splits import size_of
from nasprune.models.nets import digits_net
from nasprune.train.augmenting import batch_change
from nasprune.train.loops import Schedule
from nasprune.train.measures import accuracy

RATE, BATCH = 0.05, 64
BUDGETS = ("50%", "25%")
SEARCHED, DENSE = "search, refit, fine-tuning", "dense"
ROWS = (
    SEARCHED,
    *("hard", "hard(rounds=3)", "soft", "soft(asymptotic=True)", "fpgm_soft"),
    *("slimming(strength=0.01)", "morphnet", "gal", "greg", "csgd", "resrep", "scratch"),
)


@dataclass(frozen=True)
class Net:
    """A trained network with its data, by the seed. epochs: that every row trains."""

    made: Callable[[int], tuple[nn.Module, DataSplits]]
    epochs: int
    augmented: bool = False


def _digits(seed: int) -> tuple[nn.Module, DataSplits]:
    data = load_data("digits", seed=seed)
    torch.manual_seed(seed)
    return nasprune.finetune(digits_net(), data, epochs=10, lr=0.1, seed=seed), data


def _resnet20(seed: int) -> tuple[nn.Module, DataSplits]:
    images = Images.read(ASSETS)
    seen, _ = images.by_seed(seed)
    order = torch.randperm(len(images.train), generator=torch.Generator().manual_seed(seed)).tolist()
    held = len(seen.validation)  # type: ignore[arg-type]
    parts = replace(seen, train=images.train.subset(order[held:]), validation=images.train.subset(order[:held]))
    return trained("resnet20", ASSETS), replace(parts, test=images.test)


NETS: Mapping[str, Net] = {"digits": Net(_digits, 15), "resnet20": Net(_resnet20, 12, augmented=True)}
made = functools.lru_cache(1)(lambda net, seed: NETS[net].made(seed))


def pruned(
    dense: nn.Module,
    data: DataSplits,
    budget: str,
    strategy: str,
    seed: int,
    *,
    epochs: int = 15,
    augmented: bool = False,
    device: str = "cpu",
) -> tuple[nn.Module, float]:
    """The small network of a strategy, and how much its cut changed the outputs."""
    dense, example = copy.deepcopy(dense).to(device), _example(data).to(device)
    model = nasprune.build(dense, (graph := nasprune.trace(dense, example)), nasprune.PrunePlan(graph.signature))
    steps = epochs * -(-size_of(data.train) // BATCH)
    schedule = Schedule(RATE, steps, 0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    pruner = nasprune.pruner(model, example, budget, steps=steps, strategy=strategy, optimizer=optimizer, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    change = batch_change(flip_and_shift if augmented else None)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(size_of(data.train), generator=generator).tolist()
        for images, labels in batches(data.train, BATCH, order):
            optimizer.param_groups[0]["lr"] = schedule.next()
            optimizer.zero_grad()
            outputs = model(change(images, generator).to(device))
            functional.cross_entropy(outputs, labels.to(device)).backward()
            optimizer.step()
            pruner.step()
    model.eval()
    found = pruner.finish()
    return found.model, found.change


def searched(
    dense: nn.Module, data: DataSplits, budget: str, seed: int, *, epochs: int, augmented: bool, device: str
) -> tuple[nn.Module, float]:
    found = nasprune.search(dense, _example(data), budget, data=data, seed=seed)
    augment = flip_and_shift if augmented else None
    tuned = nasprune.finetune(
        found.model, data, epochs=epochs, batch_size=BATCH, augment=augment, seed=seed, device=device
    )
    return tuned, 0.0


def _example(data: DataSplits) -> torch.Tensor:
    return torch.zeros(1, *data.input_shape)


@dataclass(frozen=True)
class Job:
    """A row on a net at a budget with a seed. device: that trains."""

    net: str
    seed: int
    row: str
    budget: str
    device: str

    def __str__(self) -> str:
        return f"{self.net}, {self.row}, {self.budget}, seed {self.seed}"


@dataclass(frozen=True)
class Reached:
    """Accuracy on the test part, in [0, 1], and the largest change of an output by the cut."""

    job: Job
    test: float
    change: float

    def __str__(self) -> str:
        return f"{self.job}: {self.test:.1%}, change {self.change:.1e}"


def reached(job: Job) -> Reached:
    logging.disable(logging.WARNING)
    dense, data = made(job.net, job.seed)
    how = {"epochs": NETS[job.net].epochs, "augmented": NETS[job.net].augmented, "device": job.device}
    if job.row == DENSE:
        small, change = dense, 0.0
    elif job.row == SEARCHED:
        small, change = searched(dense, data, job.budget, job.seed, **how)
    else:
        small, change = pruned(dense, data, job.budget, job.row, job.seed, **how)
    return Reached(job, accuracy(small, data.test), change)


def table(rows: Sequence[Reached]) -> Table:
    """One line for each net and strategy: means over seeds, the lowest, and the largest change by the cut."""
    shown = Table("net", "strategy", *(f"test % at {budget}" for budget in BUDGETS), "lowest", "change by the cut")
    for net in NETS:
        for row in (DENSE, *ROWS):
            found = [one for one in rows if (one.job.net, one.job.row) == (net, row)]
            tests = {budget: [100 * one.test for one in found if one.job.budget == budget] for budget in BUDGETS}
            if found:
                means = [
                    f"{mean(tests[budget]):.1f} ({len(tests[budget])})" if tests[budget] else "" for budget in BUDGETS
                ]
                lowest = f"{min(100 * one.test for one in found):.1f}"
                shown.add_row(net, row, *means, lowest, f"{max(one.change for one in found):.0e}")
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "strategies")
    parser.add_argument("--nets", default=",".join(NETS), help="of digits and resnet20")
    parser.add_argument("--rows", default="*", help="glob, such as 'soft*'")
    parser.add_argument("--device", default="cpu", help="that trains")
    options = parser.parse_args(arguments)
    console = Console(width=WIDTH, highlight=False)
    nets = options.nets.split(",")
    if "resnet20" in nets and not (ASSETS / "cifar10_resnet20.safetensors").is_file():
        console.print(f"resnet20 is left out: no weights in {ASSETS}; set NASPRUNE_ASSETS to the folder with them")
        nets.remove("resnet20")
    names = [row for row in ROWS if fnmatchcase(row, options.rows)]
    jobs = [
        Job(net, seed, row, budget, options.device)
        for net in nets
        for seed in range(options.seeds)
        for budget, rows in zip(BUDGETS, ([DENSE, *names], names), strict=True)
        for row in rows
    ]
    rows: list[Reached] = []
    record = Record(options.out, "strategies at equal training cost", lambda: table(rows))
    for job, row in worked(reached, jobs, at_once=options.jobs, threads=options.threads):
        if isinstance(row, Failed):
            console.print(f"{job}: {row}")
            continue
        console.print(str(row))
        rows.append(row)
        record.add(row)
    console.print(table(rows))


if __name__ == "__main__":
    main()
