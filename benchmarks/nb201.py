"""What scores of operations are worth on NAS-Bench-201, replayed from its table of trained networks.

    python -m benchmarks.nb201 [--data FOLDER]

The scores are those that the authors of Zero-Cost-PT published (Xiang et al. 2021, arXiv:2106.08619): one supernet, all
candidates scored once. The accuracies are those of all 15,625 networks (Dong & Yang 2020, arXiv:2001.00326; CIFAR-10,
200 epochs, test), means of up to three trainings. Candidates are kept by nasprune's own knapsack. In the first table
`none` is a candidate like any other, as in the published values beside it; in the second it goes first, which is what
`Supernet.trim` does.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from nasprune import OpChoice
from nasprune.supernet.report.ranks import spearman
from nasprune.supernet.trim.knapsacks import best_subsets

FOLDER = Path(os.environ.get("NASPRUNE_ASSETS", Path(__file__).parents[2] / "shared" / "data"))
EDGES = ("0-1", "0-2", "1-2", "0-3", "1-3", "2-3")
OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
BASE, COSTS = 7_783_050, (0, 0, 3_932_160, 35_389_440, 0)  # multiply-adds, by the authors' counter
BUDGETS = (20, 60, 80, 100, 150, 221)
GOOD = 93.0
UNCONNECTED = 11.0  # percent: what a network reaches that does not hear its input

# Label -> (row of the file of scores, whether a high value means keep); "" is computed here.
SCORES = {
    "Zero-Cost-PT nwot": ("zc pt", False),
    "Zero-Cost-PT synflow": ("synflow", False),
    "FLOPs order": ("", True),
    "DARTS-PT": ("dartspt", False),
    "TE-NAS": ("tenaspt", False),
    "DARTS alpha, epoch 60": ("alpha-60", True),
    "DARTS alpha, final": ("alpha", True),
    "discretised accuracy": ("discrete acc darts", True),
    "oracle: mean accuracy": ("", True),
}

# Rank correlations with the best and the mean accuracy; the one network of the best candidates; best and mean accuracy,
# share of good networks and mean MFLOPs of the space with three and with two candidates an edge. The published
# correlations of the discretised accuracy are not those of the row that gives its other numbers.
PUBLISHED = {
    "Zero-Cost-PT nwot": (0.77, 0.83, 94.20, 94.37, 92.45, 0.48, 86, 94.37, 93.47, 0.80, 108),
    "Zero-Cost-PT synflow": (0.63, 0.93, 93.76, 94.37, 92.14, 0.41, 86, 93.89, 93.21, 0.78, 126),
    "FLOPs order": (None, None, 93.76, 94.37, 92.27, 0.45, 86, 93.89, 93.21, 0.78, 126),
    "DARTS-PT": (0.42, 0.67, 80.57, 94.37, 92.27, 0.45, 86, 94.36, 90.82, 0.50, 114),
    "TE-NAS": (0.44, 0.30, 91.87, 93.79, 91.19, 0.17, 84, 93.74, 92.42, 0.31, 100),
    "DARTS alpha, epoch 60": (0.20, 0.32, 54.30, 94.37, 91.22, 0.30, 81, 93.79, 89.88, 0.22, 79),
    "DARTS alpha, final": (None, None, 54.30, 94.36, 90.92, 0.26, 80, 93.79, 89.66, 0.20, 61),
    "discretised accuracy": (-0.32, -0.48, 86.41, 93.79, 84.69, 0.04, 43, 86.80, 78.55, 0.0, 8),
    "oracle: mean accuracy": (None, None, 93.76, 94.37, 92.45, 0.48, 86, 93.89, 93.21, 0.78, 126),
}
LARGEST = {60: 92.21, 80: 89.91, 100: 93.01}
RANDOM = (90.8, 93.9, 87.1, 93.3, 86.9)
DRAWS = 1000
OPTIMA = {20: 91.51, 60: 93.75, 80: 93.91, 100: 94.31, 150: 94.34, 221: 94.37}


@dataclass(frozen=True)
class Bench:
    """accuracy, flops: (5,) * 6, mean accuracy and multiply-adds of every network by its operations; best_trial: of the
    trainings of each the best. scores: row of the file -> (6, 5)."""

    accuracy: np.ndarray
    best_trial: np.ndarray
    flops: np.ndarray
    scores: dict[str, np.ndarray]

    def per_op(self, values: np.ndarray, reduce: str) -> np.ndarray:
        """(6, 5): max or mean of the networks that have the operation on the edge."""
        return np.array([[getattr(values.take(op, axis=e), reduce)() for op in range(5)] for e in range(6)])

    def of(self, label: str) -> np.ndarray:
        """(6, 5), higher = keep."""
        if label.startswith("FLOPs"):
            return np.tile([0.0, 2.0, 3.0, 4.0, 1.0], (6, 1))
        if label.startswith("oracle"):
            return self.per_op(self.accuracy, "mean")
        row, high = SCORES[label]
        return self.scores[row] if high else -self.scores[row]


def load(folder: Path) -> Bench:
    """Both files."""
    accuracy, best = np.zeros((5,) * 6), np.zeros((5,) * 6)
    flops = np.zeros((5,) * 6, dtype=np.int64)
    with (folder / "nb201_cifar10_200ep.csv").open(newline="") as file:
        for row in list(csv.reader(file))[1:]:
            where = tuple(int(op) for op in row[:6])
            trials = [float(value) for value in row[6:] if value]
            accuracy[where], best[where] = fmean(trials), max(trials)
            flops[where] = BASE + sum(COSTS[op] for op in where)
    found: dict[str, list[list[float]]] = {}
    with (folder / "nb201_op_scores.csv").open(newline="", encoding="utf-8") as file:
        for row in list(csv.reader(file))[1:]:
            if row[0] and row[0] != "acc":
                found.setdefault(row[0], []).append([float(value) for value in row[1:6]])
    return Bench(accuracy, best, flops, {name: np.array(rows) for name, rows in found.items()})


def choices(*, none_first: bool) -> tuple[OpChoice, ...]:
    """One for each edge. none_first: whether `none` is known to connect nothing, so that it goes first."""
    ops = OPS if none_first else ("no connection", *OPS[1:])
    return tuple(OpChoice(edge, ops, (number,)) for number, edge in enumerate(EDGES))


def kept(scores: np.ndarray, most: int, limit: int | None = None, *, none_first: bool = False) -> list[tuple[int, ...]]:
    """For each edge the operations that stay, at most `most`, by nasprune's knapsack. limit: of the sum of `COSTS`."""
    found = choices(none_first=none_first)
    above = torch.from_numpy(scores - scores.min())
    by_name = {one.name: above[number] for number, one in enumerate(found)}
    picked = best_subsets(found, by_name, dict.fromkeys(by_name, COSTS), limit, dict.fromkeys(by_name, most))
    return [picked[one.name] for one in found]


def outcome(bench: Bench, scores: np.ndarray, *, none_first: bool = False) -> tuple[float, ...]:
    """The eleven numbers of `PUBLISHED`."""
    references = bench.per_op(bench.best_trial, "max"), bench.per_op(bench.accuracy, "mean")
    values: list[float] = []
    for reference in references:
        pairs = zip(scores.tolist(), reference.tolist(), strict=True)
        values.append(fmean(spearman(one, other) or 0.0 for one, other in pairs))
    values.append(float(bench.accuracy[np.ix_(*kept(scores, 1, none_first=none_first))].item()))
    for most in (3, 2):
        where = np.ix_(*kept(scores, most, none_first=none_first))
        space = bench.accuracy[where]
        values += [space.max(), space.mean(), (space >= GOOD).mean(), bench.flops[where].mean() / 1e6]
    return tuple(float(value) for value in values)


def optimum(bench: Bench, mega: float) -> float:
    """The best accuracy within so many million multiply-adds."""
    return float(bench.accuracy[bench.flops <= mega * 1e6].max())


def largest(bench: Bench, mega: float) -> float:
    """The mean accuracy of the connected networks with the most multiply-adds within so many million."""
    within = bench.flops <= mega * 1e6
    most = within & (bench.flops == bench.flops[within].max())
    return float(bench.accuracy[most & (bench.accuracy > UNCONNECTED)].mean())


def by_chance(bench: Bench) -> tuple[float, ...]:
    """Like `RANDOM`: candidates at random, one, three and two an edge; medians of the best, means of the mean."""
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        order = generator.random((6, 5)).argsort(axis=1)
        spaces = [bench.accuracy[np.ix_(*order[:, :most])] for most in (1, 3, 2)]
        drawn.append([value for space in spaces for value in (space.max(), space.mean())])
    best, mean = np.median(drawn, axis=0), np.mean(drawn, axis=0)
    return tuple(float(value) for value in (best[0], best[2], mean[3], best[4], mean[5]))


def table(bench: Bench, *, none_first: bool) -> Table:
    title = "none goes first" if none_first else "none like any other; published in brackets where it differs"
    columns = (
        "rho best",
        "rho mean",
        "argmax",
        *(f"{n}: {what}" for n in (3, 2) for what in ("best", "mean", "P", "M")),
    )
    shown = Table("scores", *columns, title=title)
    for label in SCORES:
        values = outcome(bench, bench.of(label), none_first=none_first)
        known: Sequence[float | None] = [None] * len(values) if none_first else PUBLISHED[label]
        shown.add_row(label, *(cell(*both) for both in zip(columns, values, known, strict=True)))
    return shown


def cell(column: str, value: float, published: float | None) -> str:
    """The number, and the published one where rounding does not give it."""
    places = 0 if column.endswith("M") else 2
    text = f"{value:.{places}f}"
    differs = published is not None and abs(value - published) > 0.51 * 10**-places
    return f"{text} ({published:.{places}f})" if differs else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder with nb201_*.csv (NASPRUNE_ASSETS)")
    bench = load(parser.parse_args().data)
    console = Console(width=140)
    for none_first in (False, True):
        console.print(table(bench, none_first=none_first))
    shown = Table("at most", "best accuracy", "published", title="the best network within a budget")
    for mega in BUDGETS:
        shown.add_row(f"{mega} MFLOPs", f"{optimum(bench, mega):.2f}", f"{OPTIMA[mega]:.2f}")
    console.print(shown)
    shown = Table("at most", "mean accuracy", "published", title="the largest networks within a budget")
    for mega, published in LARGEST.items():
        shown.add_row(f"{mega} MFLOPs", f"{largest(bench, mega):.2f}", f"{published:.2f}")
    console.print(shown)
    shown = Table("", "1", "3: best", "3: mean", "2: best", "2: mean", title=f"candidates at random, {DRAWS} draws")
    shown.add_row("here", *(f"{value:.1f}" for value in by_chance(bench)))
    shown.add_row("published", *(f"{value:.1f}" for value in RANDOM))
    console.print(shown)


if __name__ == "__main__":
    main()
