"""Pruned and quantised: CIFAR ResNets, dense and cut to half of their FLOPs, in floating point and in 8-bit integers.

    python -m benchmarks.int8 [--nets resnet20 resnet56] [--seed 0]

The search and the ranges of activations see training images alone; accuracies are those of the 509 test images, in
onnxruntime, where both files run. Times are for one image on one thread, in alternation. Weights and images are read
from the folder that NASPRUNE_ASSETS names, `../shared/data` by default.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import nasprune
from benchmarks.cifar import ASSETS, EXAMPLE, Images, trained

BUDGET = "50%"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="*", default=["resnet20", "resnet56"])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    images = Images.read(ASSETS)
    seen, _ = images.by_seed(asked.seed)
    judged = replace(seen, test=images.test)
    table = Table("network", "MB", "in int8", "ms", "in int8", "test accuracy, %", "in int8", "same answers, %")
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.nets:
            dense = trained(name, ASSETS)
            cut = nasprune.search(dense, EXAMPLE, BUDGET, data=seen, seed=asked.seed).model
            for kind, net in (("dense", dense), (f"at {BUDGET} of the FLOPs", cut)):
                done = nasprune.quantise(net, EXAMPLE, Path(folder) / "int8.onnx", judged)
                before, after = done.before, done.after
                table.add_row(
                    f"{name}, {kind}",
                    *(f"{side.bytes / 1e6:.2f}" for side in (before, after)),
                    *(f"{side.milliseconds:.2f}" for side in (before, after)),
                    *(f"{100 * (side.accuracy or 0):.1f}" for side in (before, after)),
                    f"{100 * done.agreement:.1f}",
                )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
