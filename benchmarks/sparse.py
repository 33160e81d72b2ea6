"""Zeros inside of weights without labels: accuracy of CIFAR ResNets when half, 70 % and 90 % of the weights are gone.

    python -m benchmarks.sparse [--seeds 3] [--nets GLOB] [--rows GLOB] [--threads N]

Every row sees 2,048 training images at most, chosen by the seed, and no label; none takes a gradient step but those
that are polished. The test images are looked at once, after the last change. Beside the methods of nasprune stand
torch's own `prune.global_unstructured` by magnitude, as it leaves the network, and with batch norms re-estimated on the
same images; a row keeps as many numbers that are not zero as the others, counted on the network it gives. Then widths,
zeros, and both, at 25, 10 and 5 % of the multiply-adds with weights that are not zero. Weights and images are read from
the folder that NASPRUNE_ASSETS names.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from statistics import mean

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.utils import prune

import nasprune
from benchmarks.cifar import ASSETS, EXAMPLE, Images, accuracy, trained
from nasprune.cut.weight_masks import count_nonzeros
from nasprune.data import DataSplits
from nasprune.refit.recalibrate import calibration_batches, recalibrate
from nasprune.run.sharing import Shared

NETS = ("resnet20", "resnet56")
SHARES = (50, 30, 10)
"""Percent of the numbers that stay."""
JOINT = (25, 10, 5)
"""Percent of the multiply-adds with weights that are not zero."""
METHODS = ("obs", "obd", "magnitude", "magnitude(refit=False)")


@dataclass(frozen=True)
class Outcome:
    """One row with one seed. kept: share of the numbers that are not zero; unseen, test: accuracies, all in [0, 1]."""

    net: str
    what: str
    row: str
    kept: float
    unseen: float
    test: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.net}, {self.what}, {self.row}: {self.kept:.2%} not zero, unseen training images {self.unseen:.1%}, "
            f"test accuracy {self.test:.1%}, {self.seconds:.0f} s"
        )


@dataclass(frozen=True)
class Row:
    """A way to a network. what: is asked for; made: gives the network for a seed's data."""

    what: str
    name: str
    made: Callable[[nn.Module, DataSplits, int], nn.Module]


def searched(shared: Mapping[str, Shared], budget: str, **options: str | bool) -> Callable[..., nn.Module]:
    """`nasprune.search`; searches that differ in the budget alone price harms once. shared: by method."""

    def made(model: nn.Module, data: DataSplits, seed: int) -> nn.Module:
        known = shared[options["sparsifier"]] if "sparsifier" in options and "space" not in options else Shared()
        return nasprune.search(model, EXAMPLE, budget, data=data, seed=seed, shared=known, **options).model  # type: ignore[arg-type]

    return made


def by_torch(percent: int, model: nn.Module, data: DataSplits, seed: int, *, norms: bool) -> nn.Module:
    """`torch.nn.utils.prune.global_unstructured` by magnitude. norms: whether their statistics are taken anew."""
    small = deepcopy(model)
    layers = [(module, "weight") for module in small.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    weights = sum(module.weight.numel() for module, _ in layers)
    gone = count_nonzeros(model) * (100 - percent) // 100
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=gone / weights)
    for module, name in layers:
        prune.remove(module, name)
    if norms:
        recalibrate(small, calibration_batches(data.calibration))
    return small


def rows() -> Iterator[Row]:
    """All of them, those that share a pricing of harms one after the other."""
    for method in METHODS:
        shared = {method: Shared()}
        for percent in SHARES:
            yield Row(f"{percent} % NNZ", method, searched(shared, f"{percent}%NNZ", sparsifier=method))
    shared = {METHODS[0]: Shared()}
    for percent in SHARES:
        polished = searched(shared, f"{percent}%NNZ", sparsifier=METHODS[0], polish=True)
        yield Row(f"{percent} % NNZ", f"{METHODS[0]}, polished", polished)
    for percent in SHARES:
        yield Row(f"{percent} % NNZ", "torch prune, global", partial(by_torch, percent, norms=False))
        yield Row(f"{percent} % NNZ", "torch prune, global, norms anew", partial(by_torch, percent, norms=True))
    for percent in JOINT:
        for name, budget, space in (
            ("widths alone", f"{percent}%", "widths"),
            ("zeros alone", f"{percent}%NNZFLOPs", "weights"),
            ("widths and zeros", f"{percent}%NNZFLOPs", "widths+weights"),
        ):
            yield Row(f"{percent} % NNZFLOPs", name, searched({}, budget, space=space))


def measured(net: str, row: Row, images: Images, seed: int) -> Outcome:
    model = trained(net, ASSETS)
    data, unseen = images.by_seed(seed)
    start = time.perf_counter()
    small = row.made(model, data, seed)
    seconds = time.perf_counter() - start
    kept = count_nonzeros(small) / count_nonzeros(model)
    return Outcome(net, row.what, row.name, kept, accuracy(small, unseen), accuracy(small, images.test), seconds)


def table(outcomes: Sequence[Outcome], title: str) -> Table:
    """One line for each net, budget and row: means over seeds, and the lowest and highest test accuracy."""
    shown = Table(
        "net", "asked for", "method", "not zero %", "unseen %", "test %", "lowest to highest", "s", title=title
    )
    grouped: dict[tuple[str, str, str], list[Outcome]] = {}
    for one in sorted(outcomes, key=lambda one: (one.net, one.what == "dense", one.what), reverse=True):
        grouped.setdefault((one.net, one.what, one.row), []).append(one)
    for (net, what, row), found in grouped.items():
        tests = [100 * one.test for one in found]
        spread = f"{min(tests):.1f} to {max(tests):.1f}" if len(found) > 1 else ""
        unseen, kept = 100 * mean(one.unseen for one in found), 100 * mean(one.kept for one in found)
        seconds = mean(one.seconds for one in found)
        shown.add_row(net, what, row, f"{kept:.2f}", f"{unseen:.1f}", f"{mean(tests):.1f}", spread, f"{seconds:.0f}")
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--nets", default="*", help="glob, such as resnet20")
    parser.add_argument("--rows", default="*", help="glob on what is asked for and the method, such as '*obs'")
    parser.add_argument("--threads", type=int, help="of torch; by default its own choice")
    options = parser.parse_args(arguments)
    if not (ASSETS / "cifar10_resnet20.safetensors").is_file():
        print(f"skipped: no weights and images in {ASSETS}; set NASPRUNE_ASSETS to the folder that holds them")
        sys.exit(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    console, images = Console(width=140, highlight=False), Images.read(ASSETS)
    outcomes: list[Outcome] = []
    for net in [net for net in NETS if fnmatchcase(net, options.nets)]:
        model = trained(net, ASSETS)
        unseen = images.by_seed(0)[1]
        outcomes.append(Outcome(net, "dense", "dense", 1.0, accuracy(model, unseen), accuracy(model, images.test), 0.0))
        for seed in range(options.seeds):
            for row in rows():
                if fnmatchcase(f"{row.what}, {row.name}", options.rows):
                    outcomes.append(measured(net, row, images, seed))
                    console.print(f"seed {seed}, {outcomes[-1]}")
    console.print(table(outcomes, f"no labels, {options.seeds} seed(s), torch {torch.__version__}"))


if __name__ == "__main__":
    main()
