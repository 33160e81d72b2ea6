"""Trimming supernets on scikit-learn's digits, with real training: three experiments.

    python -m benchmarks.supernet [E2] [E4] [E5] [--seeds 3] [--workers 2] [--scorers NAMES] [--json FILE] [--quick]

E2: NAS-Bench-201's space (one cell a stage, 8 channels). A supernet is trained bilevel, every scorer trims it to 3, 2
and 1 operations an edge, and architectures of the trimmed spaces are trained from scratch on 250 images. They are
sampled at the same MACs from every space, as far as it has such; the table gives test NLL, lower is better.
E4: RobustDARTS' toy spaces with an operation that computes nothing: how often does each scorer keep it?
E5: a supernet in the style of the DARTS authors' code: recognised, trimmed to 60 % of its MACs, trained on.

Intervals are 95 % percentile bootstraps over seeds, coarse where seeds are few. A seed fixes the split of the images,
the initial weights and every draw. Settings were chosen with seeds from 100 on, which are not reported.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from benchmarks import foreign, noise, trims
from benchmarks.digits import FULL, QUICK

NAMES = ("E2", "E4", "E5")
WORKERS = 2


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    torch.set_num_threads(1)
    console = Console(width=None if Console().is_terminal else 180)
    effort = QUICK if given.quick else FULL
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    more = range(given.first_seed, given.first_seed + max(given.seeds, given.noise_seeds))
    record: dict[str, Any] = {"seeds": list(seeds), "effort": vars(effort), "torch": torch.__version__}

    def progress(wanted: Sequence[tuple[int, trims.Cell]]) -> Iterator[tuple[int, trims.Cell]]:
        yield from track(wanted, "training architectures", console=console)

    for name in given.experiments or NAMES:
        start = time.perf_counter()
        if name == "E2":
            record[name] = trims.experiment(seeds, effort, given.workers, progress)
            console.print(trims.table(record[name]))
        elif name == "E4":
            record[name] = noise.experiment(more, effort, given.scorers, given.toys, given.cache)
            console.print(noise.table(record[name]))
        else:
            record[name] = foreign.experiment(given.first_seed, effort)
            console.print(foreign.table(record[name]))
        record[name]["wall"] = time.perf_counter() - start
        console.print(f"{name}: {record[name]['wall']:.0f} s")
        if given.json:
            given.json.write_text(json.dumps(record, indent=1) + "\n")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="benchmarks.supernet", description=(__doc__ or "").partition("\n")[0])
    found.add_argument("experiments", nargs="*", metavar="E2, E4, E5", help="which; all by default", type=_known)
    found.add_argument("--seeds", type=int, default=3, help="how many seeds E2 runs (3)")
    found.add_argument("--noise-seeds", type=int, default=5, help="how many seeds E4 runs at least (5)")
    found.add_argument("--first-seed", type=int, default=0, help="the first of them (0)")
    found.add_argument("--scorers", nargs="+", default=noise.SCORERS, help="which E4 compares (all)")
    found.add_argument("--toys", nargs="+", choices=noise.TOYS, default=tuple(noise.TOYS), help="spaces of E4 (all)")
    found.add_argument("--cache", type=Path, help="folder for the trained supernets of E4, to score them again later")
    found.add_argument("--workers", type=int, default=min(WORKERS, os.cpu_count() or 1), help="processes of E2")
    found.add_argument("--json", type=Path, help="where to store the numbers")
    found.add_argument("--quick", action="store_true", help="next to no training: for tests of this file only")
    return found


def _known(name: str) -> str:
    if name not in NAMES:
        raise argparse.ArgumentTypeError(f"unknown experiment {name!r}; known: {', '.join(NAMES)}")
    return name


if __name__ == "__main__":
    main()
