"""Accuracy before any fine-tuning, at equal FLOPs: nasprune beside its baselines and a peer, on CIFAR ResNets.

    python -m benchmarks.cifar [--seeds 3] [--cases GLOB] [--rows GLOB] [--threads N] [--jobs N]
    python -m benchmarks.cifar --ablation [--cases 'resnet20 50*'] [--rows GLOB]

A row sees 2,048 training images at most, chosen by the seed, and takes no gradient step on the weights, but where
--trials gives it a limit of time, which is spent on polishing without labels. The 509 test images are looked at once,
after the cut. Every row's FLOPs are counted by fvcore on the network it gives. Weights and images are read from the
folder that NASPRUNE_ASSETS names, `../shared/data` by default.

The ablation crosses criteria, reconstruction and controllers, on ResNet-20 at half the FLOPs where `--cases` names
nothing else. It also prints the accuracy on 1,024 training images that no row has seen: settings are to be chosen by
it, not by the test accuracy.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from statistics import mean
from typing import ClassVar, Protocol

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import Dataset

import nasprune
from benchmarks.peers import ModelOptFastNAS, TorchPruning
from nasprune import models
from nasprune.cost.flops import measure
from nasprune.data import ArrayDataset, DataSplits, load_data
from nasprune.errors import NaspruneError
from nasprune.models.weights import load_weights
from nasprune.refit.recalibrate import batches_of

ASSETS = Path(os.environ.get("NASPRUNE_ASSETS", Path(__file__).parents[2] / "shared" / "data"))
SEEN = {"calibration": 1024, "validation": 512, "train": 512}
UNSEEN = 1024
EXAMPLE = torch.zeros(1, 3, 32, 32)


@dataclass(frozen=True)
class Case:
    """A trained network of `nasprune.models` and the share of its FLOPs, in percent, that may stay."""

    net: str
    percent: int

    def __str__(self) -> str:
        return f"{self.net} {self.percent} %"


class Row(Protocol):
    """A way to cut a network. missing: why it cannot run here, or nothing. once: slow, so with one seed only."""

    once: ClassVar[bool]

    @property
    def name(self) -> str: ...

    @property
    def missing(self) -> str: ...

    def cut(self, model: nn.Module, example: Tensor, budget: int, data: DataSplits, seed: int) -> nn.Module: ...


@dataclass(frozen=True)
class Setting:
    """`nasprune.search` with these arguments besides the model, the example, the budget, the data and the seed."""

    name: str
    kwargs: Mapping[str, object] = field(default_factory=dict)
    missing: ClassVar[str] = ""
    once: ClassVar[bool] = False

    def cut(self, model: nn.Module, example: Tensor, budget: int, data: DataSplits, seed: int) -> nn.Module:
        return nasprune.search(model, example, f"{budget}FLOPs", data=data, seed=seed, **self.kwargs).model


CASES = (Case("resnet56", 50), Case("resnet56", 35), Case("resnet20", 50))
MORE_CASES = (Case("resnet20", 35), Case("resnet56", 25))
UNIFORM = {"controller": "uniform"}
PLAIN = {"criterion": "l2", "reconstruct": "none"}  # no more than batch-norm statistics anew
ROWS: tuple[Row, ...] = (
    Setting("nasprune"),
    Setting("nasprune, uniform", UNIFORM),
    Setting("nasprune, evolution, l2", {"controller": "evolution", "trials": 16} | PLAIN),
    Setting("nasprune, uniform, l2", UNIFORM | PLAIN),
    TorchPruning(),
    ModelOptFastNAS(),
)
CRITERIA = (
    *("random", "l1", "l2", "lp", "fpgm", "bn_scale", "lamp", "kse", "csgd_cluster", "cosine"),
    *("apoz", "taylor", "obd", "nisp", "thinet", "lasso", "obs"),
)
CONTROLLERS = {
    "uniform": {"controller": "uniform"},
    "global": {"controller": "global"},
    "sensitivity": {"controller": "sensitivity"},
    "auto, 24 trials": {"controller": "auto", "trials": 24},
}


def ablated(controller: str, criterion: str, reconstruct: str) -> Setting:
    kwargs = CONTROLLERS[controller] | {"criterion": criterion, "reconstruct": reconstruct}
    return Setting(f"{controller}, {criterion}, {reconstruct}", kwargs)


GRID = product(("uniform", "global", "sensitivity"), CRITERIA, ("none", "lstsq"))
BESIDE_GRID = (("sensitivity", "l2", "obs"), ("sensitivity", "obs", "obs"), ("auto, 24 trials", "l2", "lstsq"))
TRIALS: tuple[Row, ...] = (
    *(Setting(f"{trials} trials", {"controller": "auto", "trials": trials}) for trials in (1, 8, 24, 64)),
    *(Setting(f"{seconds} seconds", {"time_limit": seconds}) for seconds in (120, 240, 480)),
)
ABLATION: tuple[Row, ...] = tuple(ablated(*row) for row in (*GRID, *BESIDE_GRID))


@dataclass(frozen=True)
class Outcome:
    """One row on one case with one seed. kept, test, unseen: in [0, 1], the latter two accuracies; seconds: wall."""

    case: Case
    row: str
    kept: float
    test: float
    unseen: float
    seconds: float

    def __str__(self) -> str:
        unseen = f", unseen training images {self.unseen:.1%}" if self.unseen else ""
        return f"{self.kept:.2%} of the FLOPs, test accuracy {self.test:.1%}{unseen}, {self.seconds:.1f} s"


class Hidden(Dataset[tuple[Tensor, int]]):
    """Test images, which a search has no business with: reading them is an error."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        raise RuntimeError("a search must not read test images")


@dataclass(frozen=True)
class Images:
    """What the benchmark measures on, and what it lets a row see."""

    train: ArrayDataset
    test: ArrayDataset

    @classmethod
    def read(cls, folder: Path) -> Images:
        splits = load_data(f"cifar10:{folder}")
        parts = splits.train, splits.calibration, splits.validation
        images, labels = [part.images for part in parts], [part.labels for part in parts]
        return cls(ArrayDataset(torch.cat(images), torch.cat(labels)), splits.test)

    def by_seed(self, seed: int, *, more: bool = False) -> tuple[DataSplits, ArrayDataset]:
        """2,048 training images for a search, and 1,024 others. more: all that are left, too, to train on."""
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed)).tolist()
        chosen: dict[str, list[int]] = {}
        for part, size in SEEN.items():
            chosen[part], order = order[:size], order[size:]
        unseen, rest = order[:UNSEEN], order[UNSEEN:]
        if more:
            chosen["train"] += rest
        parts = {part: self.train.subset(indices) for part, indices in chosen.items()}
        shape = tuple(self.train.images.shape[1:])
        seen = DataSplits("cifar10", test=Hidden(), num_classes=10, input_shape=shape, **parts)
        return seen, self.train.subset(unseen)


def accuracy(model: nn.Module, data: ArrayDataset) -> float:
    """Top-1 in eval mode, in [0, 1]."""
    model.eval()
    with torch.inference_mode():
        return sum(int((model(x).argmax(1) == y).sum()) for x, y in batches_of(data)) / len(data)


def trained(net: str, folder: Path) -> nn.Module:
    """A network of `nasprune.models` with its weights, in eval mode."""
    model: nn.Module = getattr(models, net)()
    load_weights(model, folder / f"cifar10_{net}.safetensors")
    return model.eval()


def measured(case: Case, row: Row, model: nn.Module, images: Images, seed: int) -> Outcome:
    """Cuts and counts. Raises RuntimeError where the network that came back is above the budget."""
    data, unseen = images.by_seed(seed)
    dense = measure(model, EXAMPLE).flops
    budget = dense * case.percent // 100
    start = time.perf_counter()
    small = row.cut(model, EXAMPLE, budget, data, seed)
    seconds = time.perf_counter() - start
    flops = measure(small, EXAMPLE).flops
    if flops > budget:
        raise RuntimeError(f"{row.name} on {case}: {flops} FLOPs by fvcore, {budget} allowed")
    return Outcome(case, row.name, flops / dense, accuracy(small, images.test), accuracy(small, unseen), seconds)


def table(outcomes: Iterable[Outcome], *, title: str, unseen: bool) -> Table:
    """One line for each case and row, in the order met: means over seeds, and the lowest and highest test accuracy."""
    grouped: dict[tuple[Case, str], list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault((outcome.case, outcome.row), []).append(outcome)
    columns = ["net, FLOPs allowed", "method", "FLOPs kept %", "test accuracy %", "lowest to highest", "seconds"]
    shown = Table(*columns, *(["unseen training images %"] if unseen else []), title=title)
    for column in shown.columns:
        column.no_wrap = True
    last: Case | None = None
    for (case, row), found in grouped.items():
        if last is not None and case != last:
            shown.add_section()
        tests = [100 * outcome.test for outcome in found]
        spread = f"{min(tests):.1f} to {max(tests):.1f}" if len(found) > 1 else ""
        kept, seconds = mean(outcome.kept for outcome in found), mean(outcome.seconds for outcome in found)
        cells = [str(case) if case != last else "", row, f"{100 * kept:.2f}", f"{mean(tests):.1f}", spread]
        cells.append(f"{seconds:.1f}" if seconds else "")
        if unseen:
            known = mean(outcome.unseen for outcome in found)
            cells.append(f"{100 * known:.1f}" if known else "")
        shown.add_row(*cells)
        last = case
    return shown


def times_slower(outcomes: Iterable[Outcome], row: str, than: str = "nasprune") -> list[str]:
    """For each case with both rows, how much longer one took than the other: means over seeds."""
    seconds: dict[tuple[Case, str], list[float]] = {}
    for outcome in outcomes:
        seconds.setdefault((outcome.case, outcome.row), []).append(outcome.seconds)
    return [
        f"{case}: {row} took {mean(found) / mean(seconds[case, than]):.1f} times as long as {than}"
        for (case, name), found in seconds.items()
        if name == row and (case, than) in seconds
    ]


@dataclass(frozen=True)
class Job:
    """One row on one case with one seed. threads: of torch; `None` is its own choice."""

    case: Case
    row: Row
    seed: int
    threads: int | None

    def __str__(self) -> str:
        return f"{self.case}, {self.row.name}, seed {self.seed}"


def outcome(job: Job) -> Outcome | str:
    """What came out, or why nothing did."""
    if job.threads:
        torch.set_num_threads(job.threads)
    try:
        return measured(job.case, job.row, trained(job.case.net, ASSETS), Images.read(ASSETS), job.seed)
    except NaspruneError as error:
        return f"failed: {type(error).__name__}: {error}"


def run(
    cases: Sequence[Case],
    rows: Sequence[Row],
    seeds: int,
    console: Console,
    *,
    jobs: int = 1,
    threads: int | None = None,
) -> tuple[list[Outcome], bool]:
    """Outcomes, each told as it comes, and whether a row failed."""
    images, failed = Images.read(ASSETS), False
    outcomes: dict[Case, list[Outcome]] = {}
    for case in cases:
        model = trained(case.net, ASSETS)
        right = accuracy(model, images.test), accuracy(model, images.by_seed(0)[1])
        outcomes[case] = [Outcome(case, "dense", 1.0, *right, 0.0)]
    here = [row for row in rows if not row.missing]
    for row in rows:
        if row.missing:
            console.print(f"{row.name} is left out: {row.missing}")
    work = [Job(case, row, seed, threads) for case in cases for row in here for seed in range(1 if row.once else seeds)]
    for job, found in zip(work, _results(work, jobs), strict=True):
        console.print(f"{job}: {found}")
        if isinstance(found, Outcome):
            outcomes[job.case].append(found)
        else:
            failed = True
    return [one for case in cases for one in outcomes[case]], failed


def _results(work: Sequence[Job], jobs: int) -> Iterator[Outcome | str]:
    if jobs == 1:
        yield from map(outcome, work)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(outcome, work)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, help="how many, from 0 on; 3, and 1 for the ablation")
    parser.add_argument("--cases", help="glob, such as 'resnet20*'")
    parser.add_argument("--rows", default="*", help="glob, such as 'nasprune'")
    parser.add_argument("--threads", type=int, help="of torch; by default its own choice")
    parser.add_argument("--jobs", type=int, default=1, help="how many rows run at once, each in a process")
    parser.add_argument("--ablation", action="store_true", help="criteria x reconstruction x controllers")
    parser.add_argument("--trials", action="store_true", help="the default search, 1 to 64 trials or 2 to 8 minutes")
    options = parser.parse_args(arguments)
    if not (ASSETS / "cifar10_resnet20.safetensors").is_file():
        print(f"skipped: no weights and images in {ASSETS}; set NASPRUNE_ASSETS to the folder that holds them")
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    known, glob = ((*CASES, *MORE_CASES), "resnet20 50*") if options.ablation else (CASES, "*")
    if options.trials:
        known, glob = (*CASES, *MORE_CASES), "resnet* [35]*"
    cases = [case for case in known if fnmatchcase(str(case), options.cases or glob)]
    rows = [
        row
        for row in (TRIALS if options.trials else ABLATION if options.ablation else ROWS)
        if fnmatchcase(row.name, options.rows)
    ]
    seeds = options.seeds or (1 if options.ablation else 3)
    console = Console(width=150, highlight=False)
    outcomes, failed = run(cases, rows, seeds, console, jobs=options.jobs, threads=options.threads)
    threads = f"{torch.get_num_threads()} thread(s), {options.jobs} at once"
    title = f"no fine-tuning, {seeds} seed(s), torch {torch.__version__}, {threads}"
    console.print(table(outcomes, title=title, unseen=options.ablation or options.trials))
    for line in times_slower(outcomes, ModelOptFastNAS().name):
        console.print(line)
    sys.exit(failed)


if __name__ == "__main__":
    main()
