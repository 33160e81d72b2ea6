"""How much hangs on which random paths the scorer `paths` draws: selections by a few of them, judged by all.

    python -m benchmarks.path_draws [--seed 0] [--draws 20]

All 4,096 single paths of an untrained NAS-Bench-201 supernet (one cell a stage, 8 channels, noise of 16x16) are run,
and a selection is judged by the worths of operations by all of them: no accuracy of any network is used. Shown is how
many per cent of the best sum of worths within budgets of 40, 60 and 80 million multiply-adds is lost on average by
selections that follow from fewer paths.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from itertools import product
from statistics import mean

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import nb201
from benchmarks.judge import EDGES, OPS, Judge
from benchmarks.supernets import SIZE
from nasprune import (
    Supernet,
    codes_along,
    draw_paths,
    flows_along,
    main_effects,
    normal_scores,
    ranks,
    supernet_space,
    unlabelled_images,
)
from nasprune.supernet.score.scoring import seeded
from nasprune.supernet.score.task import ScoringTask
from nasprune.supernet.structure.structure import Structure

COUNTS = (200, 400, 800)
BUDGETS = (40.0, 60.0, 80.0)
IMAGES = 16

Single = tuple[int, ...]
"""The candidate in each choice, by number."""


def structure_of(seed: int) -> Structure:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        space = supernet_space("nasbench201")
        net, example = space.supernet(SIZE), torch.randn(4, *SIZE.input_shape[1:])
    return Supernet.from_model(net, example, space=space).structure


def proxies(task: ScoringTask) -> dict[Single, tuple[float, float]]:
    """NASWOT and SynFlow of every path."""
    every = list(product(*(choice.connecting for choice in task.choices)))
    paths = [{choice.name: op for choice, op in zip(task.choices, path, strict=True)} for path in every]
    with seeded(task.seed, task.example.device):
        inputs = unlabelled_images(task, IMAGES)
        codes = codes_along(task, paths, inputs)
        flows = [float(flow) for flow in flows_along(task, paths)]
    return dict(zip(every, zip(codes, flows, strict=True), strict=True))


def worths(
    task: ScoringTask, known: Mapping[Single, tuple[float, float]], paths: Sequence[Mapping[str, int]]
) -> np.ndarray:
    """(6, 4), as `paths` gives them for these paths."""
    values = [known[tuple(path[choice.name] for choice in task.choices)] for path in paths]
    total: Tensor = ranks([code for code, _ in values]) + ranks([flow for _, flow in values])
    found = main_effects(task.choices, paths, normal_scores(total))
    return np.stack([found[choice.name][list(choice.connecting)].numpy() for choice in task.choices])


def lost(judge: Judge, all_of_them: np.ndarray, few: np.ndarray, k: int) -> float:
    """Per cent of the best sum of worths, mean over budgets."""

    def worth(kept: Sequence[Sequence[int]]) -> float:
        return sum(float(all_of_them[edge, list(ops)].sum()) for edge, ops in enumerate(kept))

    found = [worth(judge.kept(few, k, budget)) / worth(judge.kept(all_of_them, k, budget)) for budget in BUDGETS]
    return 100 * (1 - mean(found))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the supernet (0)")
    parser.add_argument("--draws", type=int, default=20, help="of so many paths each (20)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    start = time.process_time()
    structure = structure_of(given.seed)
    task = ScoringTask.on_copy(structure, (), (), given.seed)
    known = proxies(task)
    judge = Judge(np.zeros((len(OPS),) * EDGES), nb201.BASE / 1e6, tuple(cost / 1e6 for cost in nb201.COSTS[1:]))
    target = worths(task, known, draw_paths(task.choices, len(known), 0))
    shown = Table("paths", "k = 3: lost %", "k = 2: lost %", title=f"{given.draws} draws; worths by {len(known)} paths")
    for count in COUNTS:
        drawn = [worths(task, known, draw_paths(task.choices, count, seed)) for seed in range(given.draws)]
        shown.add_row(str(count), *(f"{mean(lost(judge, target, few, k) for few in drawn):.2f}" for k in (3, 2)))
    console = Console(width=100)
    console.print(shown)
    console.print(f"{time.process_time() - start:.0f} CPU s")


if __name__ == "__main__":
    main()
