"""Point clouds: PointNets dense, with a tenth of the weights of their layers, and with half of the FLOPs.

    python -m benchmarks.sparse_points [--seeds 3] [--nets GLOB] [--epochs 10] [--threads N] [--validation]

Clouds of ten solids are made by the seed. The dense network is trained on clouds that are turned at random. From it
come one with 90 % of the weights at zero by `gradual`, for as many epochs; one with as many zeros by a search, with its
refit alone, and fine-tuned for as many epochs with the dense network as the teacher; and one with half of the FLOPs by
a search, with its refit alone. Weights are those of convolutions and linear layers; biases and norms stay. Test clouds
are looked at once a network; `--validation` looks at validation clouds instead.
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
from torch import Tensor, nn

import nasprune
from benchmarks.sparse_mnist import trained
from nasprune.data import DataSplits, load_data
from nasprune.models import pointnet, pointnet2
from nasprune.train.measures import accuracy

NETS: dict[str, Callable[[], nn.Module]] = {"PointNet": pointnet, "PointNet++": pointnet2}
RATE, BATCH = 0.05, 64
SHARE, CHANNELS = 0.1, "50%"


def turned(clouds: Tensor, generator: torch.Generator) -> Tensor:
    """Clouds (n, 3, points), each turned, or mirrored, at random."""
    turns, upper = torch.linalg.qr(torch.randn(len(clouds), 3, 3, generator=generator))
    return (turns * upper.diagonal(dim1=1, dim2=2).sign()[:, None]) @ clouds


def share_of_numbers(net: nn.Module) -> str:
    """The budget that keeps SHARE of the weights of layers, and all biases and norms."""
    whole = sum(parameter.numel() for parameter in net.parameters())
    weights = sum(parameter.numel() for parameter in net.parameters() if parameter.ndim > 1)
    return f"{100 * (1 - (1 - SHARE) * weights / whole):.3f}%NNZ"


def rows(net: str, data: DataSplits, epochs: int, seed: int, part: str) -> dict[str, tuple[float, float]]:
    """Accuracy in percent, and seconds, of each network."""
    torch.manual_seed(seed)
    found, started = {}, time.monotonic()

    def reached(name: str, model: nn.Module) -> None:
        nonlocal started
        found[name] = (100 * accuracy(model, getattr(data, part)), time.monotonic() - started)
        started = time.monotonic()

    example = torch.zeros(1, *data.input_shape)
    dense = trained(NETS[net](), data, epochs, seed, rate=RATE, batch=BATCH, augment=turned)
    reached("dense", dense)
    zeros, less = share_of_numbers(dense), f"{SHARE:.0%} of the weights"
    start = copy.deepcopy(dense)
    sparse = trained(start, data, epochs, seed, ("gradual", zeros), rate=RATE, batch=BATCH, augment=turned)
    reached(f"{less}, gradual", sparse.model)
    cut = nasprune.search(dense, example, zeros, data=data, seed=seed)
    assert cut.report.proof.ok
    reached(f"{less}, searched and refitted", cut.model)
    tuned = nasprune.finetune(cut, data, epochs=epochs, batch_size=BATCH, teacher=dense, augment=turned, seed=seed)
    reached(f"{less}, searched, refitted, fine-tuned", tuned)
    cut = nasprune.search(dense, example, CHANNELS, data=data, seed=seed)
    assert cut.report.proof.ok
    reached(f"{CHANNELS}, searched and refitted", cut.model)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--nets", default="*", help="glob, such as 'PointNet'")
    parser.add_argument("--epochs", type=int, default=10, help="of the dense training, and of the sparse ones")
    parser.add_argument("--threads", type=int, help="of torch; by default its own choice")
    parser.add_argument("--validation", action="store_true", help="accuracy on validation clouds")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    console, part = Console(width=150, highlight=False), "validation" if options.validation else "test"
    table = Table("network", "", f"{part} accuracy %", "s")
    for net in (name for name in NETS if fnmatchcase(name, options.nets)):
        every: dict[str, list[tuple[float, float]]] = {}
        for seed in range(options.seeds):
            for name, pair in rows(net, load_data("pointclouds", seed=seed), options.epochs, seed, part).items():
                every.setdefault(name, []).append(pair)
                console.print(f"{net}, {name}, seed {seed}: {pair[0]:.1f} %, {pair[1]:.0f} s")
        for name, pairs in every.items():
            table.add_row(net, name, f"{mean(one for one, _ in pairs):.1f}", f"{mean(one for _, one in pairs):.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
