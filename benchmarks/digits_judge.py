"""The second judge: NAS-Bench-201 cells trained from scratch on digits, and a ridge of their NLL for all others.

    python -m benchmarks.digits_judge [--seeds 7 8] [--check 60] [--cache FILE]

240 random cells are trained on 250 images (about ten minutes, once), and a ridge on the operations of edges and pairs
of edges stands for the table of all 4,096. An untrained supernet is then scored by `paths`, and by what `check=60` of
`trim` settles on, with 250 training images and 210 to validate; percentiles are those of `benchmarks.nb201_trims`.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from random import Random

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import nb201
from benchmarks.digits import digits
from benchmarks.judge import EDGES, OPS, Judge, mean_of, verdict
from benchmarks.trims import IMAGES, SIZE, Cell, stand_alone
from nasprune import Supernet, supernet_space
from nasprune.data import DataSplits
from nasprune.data.splits import split_indices
from nasprune.supernet.checked import checked_scorer
from nasprune.supernet.score.naming import op_scorer
from nasprune.supernet.supernet import _data
from nasprune.supernet.trim.trimming import scores_of

CELLS, STEPS, SEEDS = 240, 60, 3
BUDGETS = (40.0, 60.0, 80.0)
PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0)

log = logging.getLogger("benchmarks")


def random_cells(count: int, seed: int) -> list[Cell]:
    """Different ones, each operation equally likely on every edge."""
    rng = Random(seed)
    found: dict[Cell, None] = {}
    while len(found) < count:
        found[tuple(rng.choice(OPS) for _ in range(EDGES))] = None
    return list(found)


def trained(cells: list[Cell], cache: Path, steps: int) -> list[float]:
    """Test NLL of each, trained on 250 images; the split of the images and the first weights change between cells."""
    known = json.loads(cache.read_text()) if cache.is_file() else {}
    start = time.perf_counter()
    for number, cell in enumerate(cells):
        name = f"{','.join(cell)}/{steps}"
        if name not in known:
            known[name] = stand_alone(number % SEEDS, cell, steps)[0]
            if number % 20 == 19 or cell is cells[-1]:
                cache.parent.mkdir(parents=True, exist_ok=True)
                cache.write_text(json.dumps(known) + "\n")
                log.info("%d of %d cells trained, %.0f s", number + 1, len(cells), time.perf_counter() - start)
    return [known[f"{','.join(cell)}/{steps}"] for cell in cells]


def digits_judge(cache: Path, count: int = CELLS, steps: int = STEPS) -> tuple[Judge, float]:
    """Minus the NLL, about its mean, of all 4,096 cells; and how well the ridge tells unseen cells (R squared).

    Costs are those of the table: these cells are smaller, and their operations cost in the same proportions.
    """
    cells = random_cells(count, seed=0)
    losses = np.array(trained(cells, cache, steps))
    for part in range(SEEDS):  # other images and first weights make all cells better or worse
        losses[part::SEEDS] -= losses[part::SEEDS].mean()
    every = list(product(OPS, repeat=EDGES))
    seen = features(cells)
    best = min(PENALTIES, key=lambda penalty: _left_out(seen, losses, penalty))
    explained = 1 - _left_out(seen, losses, best) / float((losses**2).mean())
    weights = np.linalg.solve(seen.T @ seen + best * np.eye(seen.shape[1]), seen.T @ losses)
    quality = -(features(every) @ weights).reshape((len(OPS),) * EDGES)
    return Judge(quality, nb201.BASE / 1e6, tuple(cost / 1e6 for cost in nb201.COSTS[1:])), explained


def features(cells: list[Cell]) -> np.ndarray:
    """(n, 24 + 240): the operation of each edge, and of each two."""
    hot = np.array([[op == name for op in cell for name in OPS] for cell in cells], dtype=float)
    pairs = [
        hot[:, len(OPS) * one + a] * hot[:, len(OPS) * other + b]
        for one, other in combinations(range(EDGES), 2)
        for a, b in product(range(len(OPS)), repeat=2)
    ]
    return np.column_stack([hot, *pairs])


def _left_out(seen: np.ndarray, values: np.ndarray, penalty: float) -> float:
    """Mean squared error on each cell by the ridge of the others."""
    hat = seen @ np.linalg.solve(seen.T @ seen + penalty * np.eye(seen.shape[1]), seen.T)
    return float((((values - hat @ values) / (1 - np.diag(hat))) ** 2).mean())


def few(seed: int) -> DataSplits:
    """The digits with 250 images to train on, as many as the judged cells had."""
    data = digits(seed)
    labels = data.train.labels.tolist()  # type: ignore[attr-defined]
    some = split_indices(labels, [IMAGES / len(labels), 1 - IMAGES / len(labels)], seed)[0]
    return replace(data, train=data.train.subset(some))  # type: ignore[attr-defined]


def rows(judge: Judge, seed: int, networks: int) -> list[tuple[str, ...]]:
    """`paths`, and what a check settles on: percentiles for k = 3, 2, 1, means over budgets; and what it said."""
    data = few(seed)
    torch.manual_seed(seed)
    space = supernet_space("nasbench201")
    structure = Supernet.from_model(space.supernet(SIZE), torch.randn(4, *SIZE.input_shape[1:]), space=space).structure
    seen, scorer = _data(data), op_scorer("paths")
    done = checked_scorer(structure, scorer, "paths", data, seen, networks=networks, seed=seed, plugins=None)
    found = []
    for name, one in (("paths", scorer), (f"--check {networks}: {done.name}", done.scorer)):
        scores = scores_of(structure, one, seen, seed)
        worths = np.stack([scores[choice.name][list(choice.connecting)].numpy() for choice in structure.choices])
        cells = [mean_of([verdict(judge, worths, k, mega) for mega in BUDGETS], "percentile") for k in (3, 2, 1)]
        found.append((str(seed), name, *(f"{cell:.0f}" for cell in cells), done.notes[0] if one is not scorer else ""))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=(7, 8))
    parser.add_argument("--check", type=int, default=60, help="networks that a check trains")
    parser.add_argument("--cache", type=Path, default=Path("runs/nb201_trims/digits.json"))
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    torch.set_num_threads(1)
    judge, explained = digits_judge(given.cache)
    shown = Table("seed", "scorer", "k = 3", "k = 2", "k = 1", "the check", title=f"digits; R squared {explained:.2f}")
    for seed in given.seeds:
        for row in rows(judge, seed, given.check):
            shown.add_row(*row)
    Console(width=150).print(shown)


if __name__ == "__main__":
    main()
