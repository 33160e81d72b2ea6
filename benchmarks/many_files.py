"""A folder of a hundred thousand pictures, and a head that reads 25,088 features: seconds to the first line, memory.

    python -m benchmarks.many_files [--files 1000 100000] [--budget 50%] [--threads N]

`nasprune search` as it is typed, on folders of ten classes; the pictures are 200 different ones under many names.
Printed are seconds until the first line on the screen, and until the end, and the process's highest memory, which
should not grow with the folder. The network's convolutions end as VGG's do, in 512 maps of 7 by 7 pixels.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.rows import WIDTH

CLASSES, PICTURES = 10, 200


def vgg_like() -> nn.Module:
    """(N, 3, 224, 224) -> (N, 10), with a first linear layer that reads 25,088 features."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for reads, makes, stride in ((3, 32, 4), (32, 128, 4), (128, 512, 2)):
        layers += [nn.Conv2d(reads, makes, 3, stride, 1), nn.BatchNorm2d(makes), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, CLASSES))


@dataclass(frozen=True)
class Run:
    """first, whole: seconds until the first line and until the end. gibibytes: the highest memory."""

    files: int
    first: float
    whole: float
    gibibytes: float


def pictures(folder: Path, count: int) -> None:
    """So many names of made-up JPEG files of 256 by 192 pixels, an equal number in each class."""
    random = np.random.default_rng(0)
    originals = []
    for number in range(PICTURES):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        originals.append(folder / f"{number}.jpg")
        Image.fromarray(coarse).resize((256, 192), Image.Resampling.BICUBIC).save(originals[-1])
    for number in range(count):
        name = folder / "data" / f"class{number % CLASSES}" / f"{number:06}.jpg"
        name.parent.mkdir(parents=True, exist_ok=True)
        os.link(originals[number % PICTURES], name)


def searched(files: int, budget: str, threads: int) -> Run:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures(folder, files)
        command = [sys.executable, "-m", "nasprune", "search", "--model", "benchmarks.many_files:vgg_like"]
        command += ["--data", f"imagefolder:{folder / 'data'}", "--budget", budget, "--evaluator", "kl"]
        command += ["--allow-chance", "--threads", str(threads), "--out", str(folder / "run")]
        start = time.perf_counter()
        first = 0.0
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                first = first or time.perf_counter() - start
                said.append(line)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit("".join(said[-20:]))
        return Run(files, first, time.perf_counter() - start, used.ru_maxrss / 2**20)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--budget", default="50%")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    shown = Table("files", "first line s", "whole s", "highest GiB", title="Folders of pictures, 25,088 features")
    for files in given.files:
        run = searched(files, given.budget, given.threads)
        shown.add_row(f"{run.files:,}", f"{run.first:.1f}", f"{run.whole:.0f}", f"{run.gibibytes:.2f}")
    Console(width=WIDTH).print(shown)


if __name__ == "__main__":
    main()
