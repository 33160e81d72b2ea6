"""CPU seconds that scores of operations take: the default, `paths`, beside `perturbation`, on untrained supernets.

    python -m benchmarks.scoring_times [--images 64] [--runs 1]

One thread, no data for `paths`. `perturbation` runs the whole supernet once for each candidate, and once: one such run
over `--images` images is measured, in its own way, and multiplied by their number; it needs several hundred images to
tell candidates apart, and its time grows with them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.table import Table

from nasprune import Size, Supernet, batch_statistics, open_gates, supernet_space
from nasprune.supernet.score.naming import op_scorer
from nasprune.supernet.score.task import ScoringTask
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.trim.trimming import Data, scores_of

NETS = {
    "NAS-Bench-201, 1 cell a stage, C = 8, 16x16": ("nasbench201", Size(8, 1, resolution=16)),
    "NAS-Bench-201, 5 cells a stage, C = 16, 32x32": ("nasbench201", Size(16, 5, resolution=32)),
    "DARTS, 8 cells, C = 16, 32x32": ("darts", Size(16, 8, resolution=32)),
}
"""The second and the third have the sizes of the papers."""


def structure_of(space_name: str, size: Size) -> Structure:
    torch.manual_seed(0)
    space = supernet_space(space_name)
    return Supernet.from_model(space.supernet(size), torch.randn(4, *size.input_shape[1:]), space=space).structure


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def of_paths(structure: Structure) -> float:
    return seconds(lambda: scores_of(structure, op_scorer("paths"), Data(), seed=0))


def of_perturbation(structure: Structure, images: int) -> float:
    """One run of the gated supernet over the images, times the runs that the scorer needs."""
    task = ScoringTask.on_copy(structure, (), (), 0)
    inputs = torch.randn(images, *structure.inputs[0].shape[1:])
    with torch.no_grad(), batch_statistics(task.net), task.gated(open_gates(task)):
        once = seconds(lambda: task.net(inputs))
    return once * (1 + sum(len(choice.connecting) for choice in structure.choices))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="of perturbation (64)")
    parser.add_argument("--runs", type=int, default=1, help="of paths; the least and the most are shown (1)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    shown = Table("supernet", "paths", f"perturbation, {given.images} images", "share", title="CPU seconds, one thread")
    for label, (space, size) in NETS.items():
        structure = structure_of(space, size)
        took = sorted(of_paths(structure) for _ in range(given.runs))
        other = of_perturbation(structure, given.images)
        between = f"{took[0]:.1f}" if given.runs == 1 else f"{took[0]:.1f} to {took[-1]:.1f}"
        shown.add_row(label, between, f"{other:.0f}", f"{took[-1] / other:.2f}")
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
