"""Which operations to keep: trims of NAS-Bench-201 supernets, judged by the table of all trained networks.

    python -m benchmarks.nb201_trims [--seeds 0 1 10 11] [--scorers NAMES] [--cache FOLDER] [--data FOLDER]
    python -m benchmarks.nb201_trims --typed [--images]    the same through `nasprune trim`, as a user types it

Supernets of one cell a stage and 8 channels, on CIFAR-10 images at 16x16 (4,085 to train on): untrained, trained
bilevel, and trained on single paths. Every scorer trims each of them, through nasprune's knapsack, to at most k
operations an edge and budgets of 40, 60 and 80 million multiply-adds, by the table's count, for the mean network that
stays. Percentile at equal cost: how many per cent of all ways to keep exactly k operations on each edge, among those
whose mean cost is within 2 million of it, have a lower mean accuracy (50 is chance). `random` is the mean of 200
random worths through the same knapsack. The seeds 10 and 11 were looked at only when all was settled, 12 and 13 once.

Supernets and scores are kept in the cache (runs/nb201_trims), so a second run takes seconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import nb201
from benchmarks.digits import spread
from benchmarks.judge import EDGES, OPS, Judge, Verdict, by_chance, judged, verdict
from benchmarks.supernets import EPOCHS, KINDS, SIZE, cifar, scores, supernet
from nasprune.supernet.storage import save_supernet
from nasprune.supernet.supernet import Supernet

SEEDS = (0, 1, 10, 11)
HELD_OUT = (10, 11)
BUDGETS = (40.0, 60.0, 80.0)
KEEPS = (3, 2, 1)
SCORERS = ("paths", "perturbation", "gate_taylor", "gate_fisher", "alpha", "nwot", "synflow", "dso")
CACHE = Path("runs/nb201_trims")
BY_FLOPS = np.tile([2.0, 3.0, 4.0, 1.0], (EDGES, 1))
"""Skip, 1x1, 3x3, pool: what `flops_order` gives."""


def table_judge(folder: Path) -> Judge:
    """Test accuracies of the table; `none` is on no edge."""
    accuracy = nb201.load(folder).accuracy[(slice(1, None),) * EDGES]
    return Judge(accuracy, nb201.BASE / 1e6, tuple(cost / 1e6 for cost in nb201.COSTS[1:]))


def verdicts(judge: Judge, worths: np.ndarray) -> list[Verdict]:
    return [verdict(judge, worths, k, budget) for k in KEEPS for budget in BUDGETS]


def experiment(
    judge: Judge, seeds: Sequence[int], scorers: Sequence[str], cache: Path, folder: Path, epochs: int
) -> dict[str, Any]:
    """Rows of JSON: scorer, kind of supernet, seed, and a verdict."""
    rows: list[dict[str, Any]] = []

    def add(scorer: str, kind: str, seed: int, found: Sequence[Verdict], seconds: float) -> None:
        rows.extend({"scorer": scorer, "kind": kind, "seed": seed, "seconds": seconds, **vars(one)} for one in found)

    add("flops_order", "any", 0, verdicts(judge, BY_FLOPS), 0.0)
    for k in KEEPS:
        for budget in BUDGETS:
            add("random", "any", 0, list(by_chance(judge, k, budget)), 0.0)
    for seed in seeds:
        data = cifar(folder, seed)
        for kind in KINDS:
            structure = supernet(kind, seed, data, cache, epochs)
            for name in scorers:
                worths, seconds = scores(structure, name, data, seed, cache / f"scores-{kind}-{seed}-{epochs}.json")
                add(name, kind, seed, verdicts(judge, worths), seconds)
    optima = {f"{k}/{budget:.0f}": judge.spaces[k].optimum(budget) for k in KEEPS for budget in BUDGETS}
    return {"rows": rows, "optima": optima}


def typed(
    judge: Judge, seeds: Sequence[int], scorer: str, cache: Path, folder: Path, epochs: int, *, images: bool = False
) -> dict[str, Any]:
    """`nasprune trim --supernet DIR --budget NMACs --keep-max K`, without data or with images, on saved supernets.

    Scores do not depend on the budget, so one command runs for each net; what others keep follows by the same knapsack
    from the scores in its report, which must give what that one kept.
    """
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        data = ["--data", factory(folder, seed, cache)] if images else []
        for kind in KINDS:
            structure = supernet(kind, seed, cifar(folder, seed), cache, epochs)
            saved = cache / f"saved-{kind}-{seed}"
            save_supernet(Supernet(structure), saved, size=SIZE)
            unit = structure.prices.of_choice(structure.choices[0])[structure.choices[0].ops.index(OPS[2])].macs
            k, budget = KEEPS[0], BUDGETS[1]
            room = int(k * (budget - judge.base) / judge.costs[2] * unit)
            out = cache / f"typed{'-images' * images}-{kind}-{seed}-{scorer}"
            command = ["trim", "--supernet", str(saved), "--budget", f"{structure.prices.base.macs + room}MACs"]
            command += ["--keep-max", str(k), "--scorer", scorer, "--out", str(out), *data]
            subprocess.run([sys.executable, "-m", "nasprune", *command], check=True, capture_output=True)
            report = json.loads((out / "report.json").read_text())
            worths = np.array([[report["scores"][f"cell/{edge}"][op] for op in OPS] for edge in range(EDGES)])
            kept = tuple(tuple(OPS.index(op) for op in report["kept"][f"cell/{edge}"]) for edge in range(EDGES))
            found = verdicts(judge, worths)
            if judged(judge, kept, k, budget) not in found:
                raise RuntimeError(f"the command kept {kept} on {saved}, its scores say otherwise")
            rows += [{"scorer": scorer, "kind": kind, "seed": seed, "seconds": 0.0, **vars(one)} for one in found]
    optima = {f"{k}/{budget:.0f}": judge.spaces[k].optimum(budget) for k in KEEPS for budget in BUDGETS}
    return {"rows": rows, "optima": optima}


def factory(folder: Path, seed: int, cache: Path) -> str:
    """What `--data` takes: a function in a file, which gives the images of a seed."""
    cache.mkdir(parents=True, exist_ok=True)
    file = cache / f"images_{seed}.py"
    file.write_text(
        "from pathlib import Path\n\nfrom benchmarks.supernets import cifar\n\n\n"
        f"def images():\n    return cifar(Path({str(folder.resolve())!r}), {seed})\n"
    )
    return f"{file}:images"


def by_net(rows: Sequence[Mapping[str, Any]], scorer: str, k: int, what: str) -> dict[int, float]:
    """A number for each net: means over the budgets."""
    own = [row for row in rows if row["scorer"] == scorer and row["k"] == k]
    nets = sorted({(row["seed"], row["kind"]) for row in own})
    return {
        number: mean(row[what] for row in own if (row["seed"], row["kind"]) == net) for number, net in enumerate(nets)
    }


def summary(record: Mapping[str, Any], title: str, seeds: Sequence[int]) -> Table:
    """One line for each scorer: percentiles with 95 % bootstrap intervals over nets."""
    rows = [row for row in record["rows"] if row["kind"] == "any" or row["seed"] in seeds]
    shown = Table(
        "scorer", "nets", *(f"k = {k}" for k in KEEPS), "accuracy below the optimum, k = 3, 2", "CPU s", title=title
    )
    for name in dict.fromkeys(row["scorer"] for row in rows):
        cells = []
        for k in KEEPS:
            found = spread(by_net(rows, name, k, "percentile"))
            cells.append(
                f"{found.mean:.1f}" + (f" [{found.low:.1f}, {found.high:.1f}]" if found.low < found.high else "")
            )
        own = [row for row in rows if row["scorer"] == name]
        lost = [
            mean(record["optima"][f"{k}/{row['budget']:.0f}"] - row["quality"] for row in own if row["k"] == k)
            for k in (3, 2)
        ]
        nets = len({(row["seed"], row["kind"]) for row in own if row["kind"] != "any"})
        seconds = mean(row["seconds"] for row in own)
        shown.add_row(
            name, str(nets or ""), *cells, f"{lost[0]:.2f}, {lost[1]:.2f}", f"{seconds:.1f}" if seconds else ""
        )
    return shown


def by_budget(record: Mapping[str, Any], scorers: Sequence[str]) -> Table:
    """Mean accuracy of what is kept, percentile, and the best network within the budget."""
    shown = Table(
        "k",
        "budget",
        "optimum",
        *scorers,
        title="mean accuracy of what is kept / percentile / best network in it within the budget",
    )
    for k in KEEPS:
        for budget in BUDGETS:
            cells = []
            for name in scorers:
                own = [row for row in record["rows"] if (row["scorer"], row["k"], row["budget"]) == (name, k, budget)]
                best = float(np.nanmean([row["best"] for row in own]))
                quality, rank = (mean(row[what] for row in own) for what in ("quality", "percentile"))
                cells.append(f"{quality:.2f} / {rank:.0f} / {best:.2f}")
            shown.add_row(str(k), f"{budget:.0f} M", f"{record['optima'][f'{k}/{budget:.0f}']:.2f}", *cells)
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=nb201.FOLDER, help="folder of the table and images (NASPRUNE_ASSETS)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--scorers", nargs="+", help="all by default; one beside --typed, paths by default")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the supernets' training")
    parser.add_argument("--typed", action="store_true", help="through `nasprune trim`")
    parser.add_argument("--images", action="store_true", help="with the images by `--data`; beside --typed")
    parser.add_argument("--json", type=Path, help="where to store the numbers")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    torch.set_num_threads(1)
    console = Console(width=150)
    judge = table_judge(given.data)
    if given.typed:
        (scorer,) = given.scorers or ("paths",)
        record = typed(judge, given.seeds, scorer, given.cache, given.data, given.epochs, images=given.images)
        console.print(summary(record, "as a user types it", given.seeds))
        for seed in given.seeds:
            console.print(summary(record, f"the same on seed {seed}", [seed]))
        console.print(by_budget(record, (scorer,)))
    else:
        scorers = given.scorers or SCORERS
        record = experiment(judge, given.seeds, scorers, given.cache, given.data, given.epochs)
        console.print(
            summary(record, "percentile at equal cost, mean over budgets, 95 % intervals over nets", given.seeds)
        )
        held = [seed for seed in given.seeds if seed in HELD_OUT]
        if held:
            console.print(summary(record, "the same on the seeds that nothing was chosen on", held))
        for kind in KINDS:
            only = {**record, "rows": [row for row in record["rows"] if row["kind"] in (kind, "any")]}
            console.print(summary(only, f"the same on {kind} supernets", given.seeds))
        console.print(
            by_budget(
                record,
                [
                    name
                    for name in ("paths", "flops_order", "random", "perturbation")
                    if name in {row["scorer"] for row in record["rows"]}
                ],
            )
        )
    if given.json:
        given.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
