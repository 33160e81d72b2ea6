"""Point clouds: PointNets dense, with a tenth of their numbers other than zero, and with half of the FLOPs.

    python -m benchmarks.sparse_points [--seeds 3] [--nets GLOB] [--epochs 8] [--threads N]

Clouds of ten solids are made by the seed. The dense network is trained; from it one with 90 % of its numbers at zero by
`gradual`, for as many steps; one with as many zeros by a search; and one with half of the FLOPs by a search: both with
their refit, without further training. Test clouds are looked at once a network.
"""

from __future__ import annotations

import argparse
import copy
import logging
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from statistics import mean

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import nasprune
from benchmarks.sparse_mnist import trained
from nasprune.data import DataSplits, load_data
from nasprune.models import pointnet, pointnet2
from nasprune.train.measures import accuracy

NETS: dict[str, Callable[[], nn.Module]] = {"PointNet": pointnet, "PointNet++": pointnet2}
RATE = 0.05
ZEROS, CHANNELS = "10%NNZ", "50%"


def rows(net: str, data: DataSplits, epochs: int, seed: int) -> dict[str, tuple[float, float]]:
    """Test accuracy in percent, and seconds, of each network."""
    torch.manual_seed(seed)
    found, started = {}, time.monotonic()

    def reached(name: str, model: nn.Module) -> None:
        nonlocal started
        found[name] = (100 * accuracy(model, data.test), time.monotonic() - started)
        started = time.monotonic()

    dense = trained(NETS[net](), data, epochs, seed, rate=RATE)
    reached("dense", dense)
    sparse = trained(copy.deepcopy(dense), data, epochs, seed, ("gradual", ZEROS), rate=RATE)
    reached(f"{ZEROS}, gradual", sparse.model)
    for budget in (ZEROS, CHANNELS):
        cut = nasprune.search(dense, torch.zeros(1, *data.input_shape), budget, data=data, seed=seed)
        assert cut.report.proof.ok
        reached(f"{budget}, searched and refitted", cut.model)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--nets", default="*", help="glob, such as 'PointNet'")
    parser.add_argument("--epochs", type=int, default=8, help="of the dense training, and of the sparse one")
    parser.add_argument("--threads", type=int, help="of torch; by default its own choice")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    console = Console(width=150, highlight=False)
    table = Table("network", "", "test accuracy %", "s")
    for net in (name for name in NETS if fnmatchcase(name, options.nets)):
        every: dict[str, list[tuple[float, float]]] = {}
        for seed in range(options.seeds):
            for name, pair in rows(net, load_data("pointclouds", seed=seed), options.epochs, seed).items():
                every.setdefault(name, []).append(pair)
                console.print(f"{net}, {name}, seed {seed}: {pair[0]:.1f} %, {pair[1]:.0f} s")
        for name, pairs in every.items():
            table.add_row(net, name, f"{mean(one for one, _ in pairs):.1f}", f"{mean(one for _, one in pairs):.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
