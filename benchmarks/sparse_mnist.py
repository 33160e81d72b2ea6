"""Sparse LeNets on 7,000 MNIST digits, each method at the sparsity that it was published with.

    python -m benchmarks.sparse_mnist [--data mnist:DIR] [--seeds 3] [--rows GLOB] [--threads N] [--validation]

A row trains the dense network, and from it the sparse one for two or three times as many steps, which would change
nothing for a dense one; methods that begin with an untrained network say "from scratch", and some have a lower learning
rate, without which they stray. The increase of the error over the row's own dense network stands beside the published
one, which was measured with 60,000 digits. Test images are looked at once a row; `--validation` looks at validation
images instead, which is what settings were chosen on.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import mean

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

import nasprune
from benchmarks.binary import BinaryLeNet5, packed_bytes
from benchmarks.cifar import ASSETS
from nasprune.common.allocation import memory_reused
from nasprune.data import DataSplits, load_data
from nasprune.data.batches import batches
from nasprune.data.splits import size_of
from nasprune.models import lenet_5, lenet_300_100
from nasprune.train.augmenting import Augment
from nasprune.train.loops import Schedule
from nasprune.train.measures import accuracy

NETS = {"LeNet-300-100": lenet_300_100, "LeNet-5": lenet_5}
EPOCHS = {"LeNet-300-100": 20, "LeNet-5": 16}
RATES = {"LeNet-300-100": 0.1, "LeNet-5": 0.05}
ADAM = 0.001
BATCH = 128
CLIP = 5.0
"""Norm of gradients, as in `nasprune.prune`: without it LeNet-5 strays with some seeds."""


@dataclass(frozen=True)
class Row:
    """method: its name in papers. published: errors in percent, dense and sparse, as far as they are known.

    scratch: from an untrained network. longer: times as many steps. slower: times as low a learning rate. adam: whether
    Adam takes the steps, as where noise is learned in the paper. batch: few digits give few steps, small ones more.
    """

    net: str
    method: str
    strategy: str
    budget: str
    published: tuple[float | None, float | None]
    scratch: bool = False
    longer: int = 2
    slower: float = 1.0
    adam: bool = False
    batch: int = BATCH

    @property
    def name(self) -> str:
        return f"{self.net} {self.method}"


FC, CONV = "LeNet-300-100", "LeNet-5"
UNKNOWN = (None, None)
XNOR = "binary (XNOR-Net)"
ROWS = (
    Row(FC, "Han 2015", "iterative_magnitude", "8.3%NNZ", (1.64, 1.59)),
    Row(FC, "gradual", "gradual", "5%NNZ", UNKNOWN),
    Row(FC, "DNS", "dns", "1.8%NNZ", (2.28, 1.99), longer=3),
    Row(FC, "LC", "lc", "5%NNZ", (2.13, 2.18)),
    Row(FC, "OLMP", "olmp", "2%NNZ", UNKNOWN, longer=3),
    Row(FC, "VD", "vd", "1.62%NNZ", (1.64, 1.92), longer=3, adam=True),
    Row(FC, "SNIP", "snip", "5%NNZ", (1.7, 1.6), scratch=True, slower=0.5),
    Row(FC, "targeted dropout", "targeted_dropout", "5%NNZ", UNKNOWN),
    Row(FC, "L0 of weights", "l0", "5%NNZ", UNKNOWN),
    Row(FC, "SBP", "sbp", "60%", (1.54, 1.55)),
    Row(FC, "L0 of units", "l0", "60%", (None, 1.4)),
    Row(FC, "BC-GNJ", "bayes(items=60000)", "60%", UNKNOWN),
    Row(CONV, "Han 2015", "iterative_magnitude", "8.3%NNZ", (0.80, 0.77)),
    Row(CONV, "DNS", "dns", "0.93%NNZ", (0.91, 0.91)),
    Row(CONV, "LC", "lc", "1%NNZ", (None, 1.1), longer=3),
    Row(CONV, "VD", "vd", "0.53%NNZ", (0.80, 0.75), longer=3, adam=True),
    Row(CONV, "VD, small batches", "vd", "0.53%NNZ", (0.80, 0.75), longer=3, adam=True, batch=32),
    Row(CONV, "SNIP", "snip", "2%NNZ", (0.9, 0.8), scratch=True),
    Row(CONV, "SBP", "sbp", "30%", (0.80, 0.86), slower=3),
    Row(CONV, "L0 of units", "l0", "30%", (None, 0.9), slower=3),
    Row(CONV, "BC-GNJ", "bayes(items=60000)", "30%", (None, 1.0), slower=3),
    Row(CONV, XNOR, "", "", UNKNOWN, scratch=True),
)


@dataclass(frozen=True)
class Outcome:
    """error, dense: of images, in percent. left: share of numbers that are not zero. units: of each group that is cut.

    ratio: of Deep Compression's file to the dense tensors. seconds: of the sparse training.
    """

    error: float
    dense: float
    left: float
    units: tuple[int, ...]
    ratio: float
    seconds: float


def kept(images: Tensor, generator: torch.Generator) -> Tensor:
    return images


@memory_reused()
def trained(
    model: nn.Module,
    data: DataSplits,
    epochs: int,
    seed: int,
    strategy: tuple[str, str] | None = None,
    *,
    rate: float,
    adam: bool = False,
    batch: int = BATCH,
    augment: Augment = kept,
):
    """A network after training; with a strategy what it came to. strategy: with its budget. augment: of inputs."""
    steps = epochs * -(-size_of(data.train) // batch)
    schedule = Schedule(rate, steps, 0.05)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    if not adam:
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=1e-4)
    pruner = None
    if strategy is not None:
        name, budget = strategy
        example = torch.zeros(1, *data.input_shape)
        pruner = nasprune.pruner(model, example, budget, steps=steps, strategy=name, optimizer=optimizer, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(size_of(data.train), generator=generator).tolist()
        for images, labels in batches(data.train, batch, order):
            optimizer.param_groups[0]["lr"] = schedule.next()
            optimizer.zero_grad()
            functional.cross_entropy(model(augment(images, generator)), labels).backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            if pruner is not None:
                pruner.step()
    model.eval()
    return pruner.finish() if pruner is not None else model


def outcome(row: Row, data: DataSplits, dense: nn.Module, seed: int, part: str) -> Outcome:
    """One row with one seed."""
    if row.method == XNOR:
        return binary(row, data, dense, seed, part)
    torch.manual_seed(seed + 1)
    model = NETS[row.net]()
    if row.scratch:
        drawn(model)
    else:
        model.load_state_dict(dense.state_dict())
    started = time.monotonic()
    epochs = EPOCHS[row.net] * row.longer
    rate = ADAM if row.adam else RATES[row.net] / row.slower
    found = trained(model, data, epochs, seed, (row.strategy, row.budget), rate=rate, adam=row.adam, batch=row.batch)
    seconds = time.monotonic() - started
    whole = sum(parameter.numel() for parameter in dense.parameters())
    units = tuple(len(found.plan.keep.get(group.name, range(group.width))) for group in found.graph.free_groups)
    with tempfile.TemporaryDirectory() as folder:
        file = nasprune.compress(found.model, Path(folder) / "net").sizes.file
    images = getattr(data, part)
    return Outcome(
        100 * (1 - accuracy(found.model, images)),
        100 * (1 - accuracy(dense, images)),
        100 * found.nonzeros / whole,
        units,
        4 * whole / file,
        seconds,
    )


def drawn(model: nn.Module) -> None:
    """Weights as Glorot, Bengio 2010 draw them, so that layers keep variances, which SNIP asks for; biases of zero."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)


def binary(row: Row, data: DataSplits, dense: nn.Module, seed: int, part: str) -> Outcome:
    """The network with binary inner layers, trained from its start."""
    torch.manual_seed(seed + 1)
    started = time.monotonic()
    model = trained(BinaryLeNet5(), data, EPOCHS[row.net], seed, rate=RATES[row.net])
    whole = sum(parameter.numel() for parameter in dense.parameters())
    images = getattr(data, part)
    errors = (100 * (1 - accuracy(net, images)) for net in (model, dense))
    return Outcome(*errors, 100.0, (), 4 * whole / packed_bytes(model), time.monotonic() - started)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=f"mnist:{ASSETS}", help="mnist:DIR, by default as NASPRUNE_ASSETS says")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--rows", default="*", help="glob, such as 'LeNet-5*'")
    parser.add_argument("--threads", type=int, help="of torch; by default its own choice")
    parser.add_argument("--validation", action="store_true", help="errors of validation images, to choose settings by")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    console = Console(width=170, highlight=False)
    part = "validation" if options.validation else "test"
    rows = [row for row in ROWS if fnmatchcase(row.name, options.rows)]
    reached: dict[str, list[Outcome]] = {}
    for seed in range(options.seeds):
        data = load_data(options.data, seed=seed)
        for net in dict.fromkeys(row.net for row in rows):
            torch.manual_seed(seed)
            dense = trained(NETS[net](), data, EPOCHS[net], seed, rate=RATES[net])
            for row in (row for row in rows if row.net == net):
                try:
                    found = outcome(row, data, dense, seed, part)
                except nasprune.NaspruneError as error:
                    console.print(f"{row.name}, seed {seed}: {error}")
                    continue
                reached.setdefault(row.name, []).append(found)
                console.print(
                    f"{row.name}, seed {seed}: {found.error:.2f} % (dense {found.dense:.2f} %), {found.left:.2f} % "
                    f"left, units {'-'.join(map(str, found.units))}, {found.ratio:.0f} times smaller, "
                    f"{found.seconds:.0f} s"
                )
    console.print(table(rows, reached, part))


def table(rows: Sequence[Row], reached: dict[str, list[Outcome]], part: str) -> Table:
    head = (
        "network, method",
        "left %",
        "units",
        f"dense {part} error %",
        "sparse",
        "increase",
        "published",
        "ratio",
        "s",
    )
    made = Table(*head)
    for row in (row for row in rows if row.name in reached):
        found = reached[row.name]
        dense, error = mean(one.dense for one in found), mean(one.error for one in found)
        made.add_row(
            f"{row.name}{' (from scratch)' if row.scratch else ''}",
            f"{mean(one.left for one in found):.2f}",
            "-".join(map(str, found[0].units)),
            f"{dense:.2f}",
            f"{error:.2f}",
            f"{error - dense:+.2f}",
            " to ".join("?" if error is None else f"{error:.2f}" for error in row.published),
            f"{mean(one.ratio for one in found):.0f}",
            f"{mean(one.seconds for one in found):.0f}",
        )
    return made


if __name__ == "__main__":
    main()
