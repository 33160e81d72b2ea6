"""E2: are the architectures left in a trimmed space good ones, at equal MACs, trained from scratch?"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from random import Random
from statistics import mean, quantiles
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from benchmarks.digits import Effort, all_scores, digits, negative_log_likelihood, size, spread, trained_supernet
from nasprune import Gene, Genotype
from nasprune.data import DataSplits
from nasprune.data.splits import split_indices
from nasprune.supernet.price.limits import Limit
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.trim.schedules import Stage
from nasprune.supernet.trim.trimming import choose
from search_spaces.nasbench201 import EDGES, NasBench201

SIZE = size(8, 1)
KEEPS = (3, 2, 1)
BASELINES = ("random", "flops_order")
SCORERS = (
    "paths",
    "perturbation",
    "gate_taylor",
    "gate_fisher",
    "alpha",
    "nwot",
    "synflow",
    "dso",
    "asap",
    "flops_order",
)
IMAGES, BATCH, RATE = 250, 50, 0.05

Cell = tuple[str, ...]
"""The operation on each edge of the cell."""
Progress = Callable[[Sequence[tuple[int, Cell]]], Iterator[tuple[int, Cell]]]


@dataclass(frozen=True)
class Space:
    """What a scorer leaves of the space: the operations on each edge. draw: of the random baseline."""

    seed: int
    scorer: str
    keep: int
    draw: int
    ops: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Quality:
    """Of the architectures sampled from one space: test NLL, lower is better; accuracy and MACs, shares, are means."""

    seed: int
    scorer: str
    keep: int
    draw: int
    mean: float
    worst_tenth: float
    best: float
    accuracy: float
    macs: float


def spaces(structure: Structure, scores: Mapping[str, Mapping[str, Tensor]], seed: int, draws: int) -> list[Space]:
    """All trims. One operation per edge is chosen within half of the MACs that operations can cost, by everyone."""
    largest = sum(max(c.macs for c in structure.prices.of_choice(choice)) for choice in structure.choices)
    half = Limit(structure.prices.base.macs + largest // 2, "macs")
    found = []
    for keep in KEEPS:
        limit = half if keep == 1 else None
        for name, values in scores.items():
            scorer, _, draw = name.partition("#")
            kept = choose(structure, values, Stage(keep=keep), limit)
            ops = tuple(tuple(choice.ops[k] for k in kept[choice.name]) for choice in structure.choices)
            found.append(Space(seed, scorer, keep, int(draw or 0), ops))
    assert draws == len({space.draw for space in found if space.scorer == "random"})
    return found


def sample(space: Space, costs: Mapping[tuple[int, str], int], count: int) -> list[Cell]:
    """Architectures nearest to `count` sizes spread evenly over the middle third of what operations can cost."""
    rng = Random(f"{space.seed}/{space.scorer}/{space.keep}/{space.draw}")
    cells = list(product(*space.ops))
    rng.shuffle(cells)
    largest = sum(max(cost for (edge, _), cost in costs.items() if edge == number) for number in range(len(EDGES)))
    chosen: list[Cell] = []
    for number in range(min(count, len(cells))):
        wanted = largest * (1 + (number + 0.5) / count) / 3
        best = min((cell for cell in cells), key=lambda cell: abs(macs(cell, costs) - wanted))
        cells.remove(best)
        chosen.append(best)
    return chosen


def macs(cell: Cell, costs: Mapping[tuple[int, str], int]) -> int:
    return sum(costs[edge, op] for edge, op in enumerate(cell))


def prices(space: NasBench201) -> dict[tuple[int, str], int]:
    """(edge, operation) -> MACs in a network of the size that is trained."""
    table = space.costs(SIZE, "macs").ops
    return {(EDGES.index((source, target)), op): cost for (_, source, target, op), cost in table.items()}


@cache
def _images(seed: int) -> tuple[Tensor, Tensor, DataSplits]:
    data = digits(seed)
    chosen = split_indices(data.train.labels.tolist(), [IMAGES / 1000, 1 - IMAGES / 1000], seed)[0]  # type: ignore[attr-defined]
    few = data.train.subset(chosen)  # type: ignore[attr-defined]
    return few.images, few.labels, data


def stand_alone(seed: int, cell: Cell, steps: int) -> tuple[float, float]:
    """Test NLL and accuracy of one architecture, trained from scratch on 250 images; seed and cell fix everything."""
    torch.set_num_threads(1)
    images, labels, data = _images(seed)
    genes = tuple(Gene(op, *edge) for op, edge in zip(cell, EDGES, strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = NasBench201().network(Genotype({"cell": genes}), SIZE).train()
    parameters = [one for one in net.parameters() if one.requires_grad]
    optimizer = torch.optim.SGD(parameters, RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    for _ in range(steps):
        if not order:
            order = torch.randperm(len(labels), generator=generator).tolist()
        batch, order = order[:BATCH], order[BATCH:]
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
    return negative_log_likelihood(net, data.test)  # type: ignore[arg-type]


def quality(space: Space, cells: Sequence[Cell], found: Mapping[tuple[int, Cell], tuple[float, float]]) -> Quality:
    costs = prices(NasBench201())
    largest = max(costs.values()) * len(EDGES)
    losses = sorted(found[space.seed, cell][0] for cell in cells)
    worst = quantiles(losses, n=10, method="inclusive")[-1] if len(losses) > 1 else losses[0]
    accuracy = mean(found[space.seed, cell][1] for cell in cells)
    size = mean(macs(cell, costs) for cell in cells) / largest
    return Quality(space.seed, space.scorer, space.keep, space.draw, mean(losses), worst, losses[0], accuracy, size)


def experiment(
    seeds: Sequence[int], effort: Effort, workers: int, progress: Progress, scorers: Sequence[str] = SCORERS
) -> dict[str, Any]:
    """Everything that E2 measures, as JSON holds it."""
    costs = prices(NasBench201())
    every: list[tuple[Space, list[Cell]]] = []
    seconds: dict[str, list[float]] = {}
    for seed in seeds:
        data = digits(seed)
        structure = trained_supernet(NasBench201(), SIZE, data, effort.supernet_epochs, seed)
        scores: dict[str, Mapping[str, Tensor]] = {}
        for name, (values, took) in all_scores(structure, scorers, data, seed).items():
            scores[name] = values
            seconds.setdefault(name, []).append(took)
        for draw in range(effort.random):
            chance = all_scores(structure, ("random",), data, 1000 * (draw + 1) + seed)
            scores[f"random#{draw}"] = chance["random"][0]
        found = spaces(structure, scores, seed, effort.random)
        every += [(space, sample(space, costs, effort.architectures)) for space in found]
    wanted = sorted({(space.seed, cell) for space, cells in every for cell in cells})
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        results = pool.map(stand_alone, *zip(*wanted, strict=True), [effort.steps] * len(wanted), chunksize=4)
        trained = dict(zip(progress(wanted), results, strict=True))
    return {
        "trained": len(trained),
        "qualities": [asdict(quality(space, cells, trained)) for space, cells in every],
        "kept": [asdict(space) for space, _ in every],
        "seconds": {name: mean(took) for name, took in seconds.items()},
    }


def by_seed(qualities: Sequence[Mapping[str, Any]], keep: int, scorer: str, what: str) -> dict[int, float]:
    """Seed -> mean over draws."""
    found: dict[int, list[float]] = {}
    for one in qualities:
        if one["keep"] == keep and one["scorer"] == scorer:
            found.setdefault(one["seed"], []).append(one[what])
    return {seed: mean(values) for seed, values in found.items()}


def table(record: Mapping[str, Any]) -> Table:
    """One line for each kept count and scorer, the best mean first within each."""
    head = ("keep", "scorer", "mean NLL", "worst tenth", "best", "acc. %", "MACs %", "- random", "- FLOPs order", "")
    shown = Table(*head, title=f"E2: {record['trained']} architectures of the trimmed spaces, trained from scratch")
    for column in shown.columns:
        column.no_wrap = True
    qualities = record["qualities"]
    for keep in KEEPS:
        names = dict.fromkeys(one["scorer"] for one in qualities)
        means = {name: by_seed(qualities, keep, name, "mean") for name in names}
        for name in sorted(names, key=lambda name: mean(means[name].values())):
            shown.add_row(str(keep), name, *_cells(qualities, keep, name, means))
        shown.add_section()
    return shown


def _cells(
    qualities: Sequence[Mapping[str, Any]], keep: int, name: str, means: Mapping[str, dict[int, float]]
) -> list[str]:
    def average(what: str) -> float:
        return mean(by_seed(qualities, keep, name, what).values())

    cells = [spread(means[name]).plain, f"{average('worst_tenth'):.3f}", f"{average('best'):.3f}"]
    cells += [f"{100 * average('accuracy'):.1f}", f"{100 * average('macs'):.0f}"]
    lost = []
    for baseline in BASELINES:
        less = {seed: value - means[baseline][seed] for seed, value in means[name].items()}
        cells.append("" if name == baseline else str(spread(less)))
        if name not in BASELINES and mean(less.values()) > 0:
            lost.append(baseline)
    return [*cells, f"[red]{' and '.join(lost)} better[/]" if lost else ""]
