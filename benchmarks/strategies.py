"""Strategies at equal training cost, on the digits net at 50 % and 25 % of its FLOPs, with the small net from scratch.

    python -m benchmarks.strategies [--seeds 3] [--rows GLOB] [--threads N]

Every row starts from the same trained network and takes the same number of SGD steps with the same cosine and labels;
`scratch` forgets the weights first. Beside them stands what a search with its refit gives, fine-tuned for as many
steps. All settings are the strategies' defaults but the strength of slimming, which the paper chose for far longer
trainings. The test images are looked at once a row.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from statistics import mean

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional

import nasprune
from nasprune.data import DataSplits, load_data
from nasprune.data.batches import batches
from nasprune.data.splits import size_of
from nasprune.models.nets import digits_net
from nasprune.train.loops import Schedule
from nasprune.train.measures import accuracy

EPOCHS, RATE, BATCH = 15, 0.05, 64
BUDGETS = ("50%", "25%")
SEARCHED = "search, refit, fine-tuning"
ROWS = (
    SEARCHED,
    *("hard", "hard(rounds=3)", "soft", "soft(asymptotic=True)", "fpgm_soft"),
    *("slimming(strength=0.01)", "morphnet", "greg", "csgd", "resrep", "scratch"),
)


def pruned(dense: nn.Module, data: DataSplits, budget: str, strategy: str, seed: int) -> tuple[nn.Module, float]:
    """The small network of a strategy, and how much its cut changed the outputs."""
    model = nasprune.build(dense, (graph := nasprune.trace(dense, _example(data))), nasprune.PrunePlan(graph.signature))
    steps = EPOCHS * -(-size_of(data.train) // BATCH)
    schedule = Schedule(RATE, steps, 0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    pruner = nasprune.pruner(
        model, _example(data), budget, steps=steps, strategy=strategy, optimizer=optimizer, seed=seed
    )
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(EPOCHS):
        order = torch.randperm(size_of(data.train), generator=generator).tolist()
        for images, labels in batches(data.train, BATCH, order):
            optimizer.param_groups[0]["lr"] = schedule.next()
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            pruner.step()
    model.eval()
    found = pruner.finish()
    return found.model, found.change


def searched(dense: nn.Module, data: DataSplits, budget: str, seed: int) -> tuple[nn.Module, float]:
    found = nasprune.search(dense, _example(data), budget, data=data, seed=seed)
    return nasprune.finetune(found.model, data, epochs=EPOCHS, batch_size=BATCH, seed=seed), 0.0


def _example(data: DataSplits) -> torch.Tensor:
    return torch.zeros(1, *data.input_shape)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--rows", default="*", help="glob, such as 'soft*'")
    parser.add_argument("--threads", type=int, help="of torch; by default its own choice")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    console = Console(width=150, highlight=False)
    reached: dict[tuple[str, str], list[float]] = {}
    changes: dict[tuple[str, str], float] = {}
    dense_reached = []
    for seed in range(options.seeds):
        data = load_data("digits", seed=seed)
        torch.manual_seed(seed)
        dense = nasprune.finetune(digits_net(), data, epochs=10, lr=0.1, seed=seed)
        dense_reached.append(accuracy(dense, data.test))
        for budget in BUDGETS:
            for row in (row for row in ROWS if fnmatchcase(row, options.rows)):
                made = searched(dense, data, budget, seed) if row == SEARCHED else None
                small, change = made or pruned(dense, data, budget, row, seed)
                reached.setdefault((row, budget), []).append(accuracy(small, data.test))
                changes[row, budget] = max(change, changes.get((row, budget), 0.0))
                console.print(f"{row}, {budget}, seed {seed}: {reached[row, budget][-1]:.1%}, change {change:.1e}")
    table = Table("strategy", *(f"test % at {budget}" for budget in BUDGETS), "lowest", "change by the cut")
    table.add_row(
        "dense", *(f"{100 * mean(dense_reached):.1f}" for _ in BUDGETS), f"{100 * min(dense_reached):.1f}", ""
    )
    for row in dict.fromkeys(row for row, _ in reached):
        every = [reached[row, budget] for budget in BUDGETS]
        worst = max(changes[row, budget] for budget in BUDGETS)
        lowest = f"{100 * min(map(min, every)):.1f}"
        table.add_row(row, *(f"{100 * mean(found):.1f}" for found in every), lowest, f"{worst:.0e}")
    console.print(table)


if __name__ == "__main__":
    main()
