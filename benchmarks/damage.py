"""Whether damages from one backward pass decide as damages do that are measured by cutting, refitting and looking.

    python -m benchmarks.damage [--net resnet20] [--decisions 25] [--percent 50] [--seed 0] [--threads N]

The slow way takes every option of every choice alone: the network is cut by it, refitted on 256 images, and its outputs
are compared with the dense network's on 512 images that neither the estimate nor the refit has seen, by the
Kullback-Leibler divergence. Whole decisions are measured in the same way on 512 further images. Rank correlations
(Spearman) with these measurements are printed for both ways, and for the backward pass without its discount for what
the refit of the layers behind makes good, on

- single options: each group narrowed and each block dropped, alone;
- random decisions: every width and block drawn at random, then moved to just under the budget;
- near decisions: the solver's own answer with six choices drawn anew, moved to just under the budget. They differ
  little in harm, and telling them apart is what the solver is trusted with.

The estimate of a decision is the sum of the damages of its options, whichever way they were found. Last, the solver's
decision from the damages of each way is measured, and its accuracy before any more refitting.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks.cifar import ASSETS, EXAMPLE, Images, trained
from nasprune.cost.budget import Budget
from nasprune.cost.flops import CostModel
from nasprune.cut.selection import select
from nasprune.cut.surgery import build
from nasprune.graph.model import ModelGraph
from nasprune.harm.damage import TEMPERATURE, Damages, damages
from nasprune.refit.reconstruct import reconstruct
from nasprune.run.names import scorer, search_space
from nasprune.run.trace import trace
from nasprune.space.choices import Decision
from nasprune.space.knapsack import solve
from nasprune.space.priced import PricedSpace

REFIT_IMAGES = 256
REDRAWN = 6
WAYS = ("one backward pass", "without the discount", "one by one")


@dataclass(frozen=True)
class Problem:
    """A network, its priced space, criterion scores and damages. plain: these without the discount.

    seconds: for the scores, and for all damages.
    """

    model: nn.Module
    graph: ModelGraph
    priced: PricedSpace
    scores: Mapping[str, Tensor]
    damages: Damages
    plain: Damages
    seconds: tuple[float, float]


@dataclass(frozen=True)
class Held:
    """Images (n, ...) that a cut network is refitted on, and others that it is measured on; labels (n,) of these."""

    refit: Tensor
    measure: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Measured:
    """What a cut and refitted network does. harm: KL from the dense outputs; accuracy: top-1, in [0, 1]."""

    harm: float
    accuracy: float


@dataclass(frozen=True)
class Pairs:
    """What each way says of the same decisions, and what they measure."""

    name: str
    estimates: tuple[tuple[float, ...], ...]
    measured: tuple[float, ...]


def prepared(model: nn.Module, example: Tensor, images: Tensor, labelled: object, percent: int, seed: int) -> Problem:
    """Scores by `obs` and damages, as a search with data takes them. images: (n, ...), for the damages."""
    graph = trace(model, example)
    space = search_space(graph, "widths")
    priced = PricedSpace(graph, space, CostModel(graph), Budget.parse(f"{percent}%"))
    start = time.perf_counter()
    scores = scorer("obs").scores(model, graph, seed=seed, data=labelled)  # type: ignore[arg-type]
    scored = time.perf_counter()
    found = damages(model, graph, space, scores, torch.split(images, 128), refit=True, seed=seed)
    seconds = scored - start, time.perf_counter() - scored
    plain = damages(model, graph, space, scores, torch.split(images, 128), refit=True, mends=False, seed=seed)
    return Problem(model, graph, priced, scores, found, plain, seconds)


def ways(problem: Problem, slow: Damages) -> tuple[Damages, ...]:
    """In the order of WAYS."""
    return problem.damages, problem.plain, slow


def single_options(problem: Problem) -> list[tuple[str, int]]:
    """Every option but full width, of every choice."""
    return [(choice.name, option) for choice in problem.priced.space.choices for option in choice.options[:-1]]


def alone(problem: Problem, name: str, option: int) -> Decision:
    """The whole network but for one option."""
    return Decision.of({**problem.priced.space.largest(), name: option})


def measured_alone(problem: Problem, held: Held) -> Damages:
    """The slow way: every option measured by itself, 0 for keeping everything."""
    found = {choice.name: {choice.options[-1]: 0.0} for choice in problem.priced.space.choices}
    for name, option in single_options(problem):
        found[name][option] = max(measured(problem, held, alone(problem, name, option)).harm, 0.0)
    return found


def random_decisions(problem: Problem, count: int, rng: Random) -> list[Decision]:
    """Drawn as random search does, just under the budget."""
    return [problem.priced.fit(problem.priced.space.sample(rng), rng) for _ in range(count)]


def near_decisions(problem: Problem, count: int, rng: Random) -> list[Decision]:
    """The solver's decision first, then ones with six of its choices drawn anew, just under the budget."""
    best = solve(problem.priced, problem.damages)
    found = [best]
    while len(found) < count:
        chosen = rng.sample(problem.priced.space.choices, min(REDRAWN, len(problem.priced.space.choices)))
        moved = {**best, **{choice.name: rng.choice(choice.options) for choice in chosen}}
        found.append(problem.priced.fit(Decision.of(moved), rng))
    return found


def estimated(problem: Problem, by: Damages, decision: Decision) -> float:
    """The sum of the damages of the decision's options; groups inside a dropped block harm no more."""
    blocks = {block.name: block for block in problem.graph.blocks}
    gone = {
        group for name, option in decision.items() if name in blocks and not option for group in blocks[name].groups
    }
    return sum(by[name][option] for name, option in decision.items() if name not in gone)


def measured(problem: Problem, held: Held, decision: Decision) -> Measured:
    """The network cut and refitted."""
    plan = select(problem.graph, problem.scores, decision)
    small = build(problem.model, problem.graph, plan).eval()
    reconstruct(problem.model, small, problem.graph, plan, held.refit)
    with torch.inference_mode():
        parts = torch.split(held.measure, 128)
        dense, logits = (torch.cat([net(part) for part in parts]) for net in (problem.model, small))
    return Measured(divergence(dense, logits), float((logits.argmax(1) == held.labels).double().mean()))


def divergence(dense: Tensor, cut: Tensor) -> float:
    """KL(dense || cut) of the softmax at the temperature of the estimate, mean over images, times its square."""
    p, q = ((logits.double() / TEMPERATURE).log_softmax(1) for logits in (dense, cut))
    return float((p.exp() * (p - q)).sum(1).mean()) * TEMPERATURE**2


def pairs(name: str, problem: Problem, slow: Damages, held: Held, decisions: Sequence[Decision]) -> Pairs:
    """Estimates in all ways, and measures each decision."""
    estimates = tuple(tuple(estimated(problem, by, one) for one in decisions) for by in ways(problem, slow))
    return Pairs(name, estimates, tuple(measured(problem, held, one).harm for one in decisions))


def singles(problem: Problem, slow: Damages) -> Pairs:
    """The options alone; the slow way is what is measured."""
    options = single_options(problem)
    estimates = tuple(tuple(by[name][option] for name, option in options) for by in ways(problem, slow))
    return Pairs("single options", estimates, estimates[-1])


def ranks(found: Sequence[Pairs], title: str) -> Table:
    """One line for each kind of decision."""
    shown = Table("decisions", "number", *(f"Spearman, {way}" for way in WAYS), title=title)
    for one in found:
        cells = [f"{spearmanr(estimates, one.measured).statistic:.3f}" for estimates in one.estimates]
        shown.add_row(one.name, str(len(one.measured)), *cells)
    return shown


def answers(problem: Problem, slow: Damages, seconds: float, held: Held) -> Table:
    """What the solver decides from damages found in each way."""
    shown = Table("damages", "seconds", "harm of the solver's decision", "accuracy %")
    times = (problem.seconds[1], problem.seconds[1], seconds)
    for name, by, took in zip(WAYS, ways(problem, slow), times, strict=True):
        found = measured(problem, held, solve(problem.priced, by))
        shown.add_row(name, f"{took:.1f}", f"{found.harm:.3f}", f"{100 * found.accuracy:.1f}")
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="resnet20")
    parser.add_argument("--decisions", type=int, default=25)
    parser.add_argument("--percent", type=int, default=50, help="of the FLOPs that whole decisions may keep")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="of torch; by default its own choice")
    options = parser.parse_args(arguments)
    if not (ASSETS / f"cifar10_{options.net}.safetensors").is_file():
        print(f"skipped: no weights and images in {ASSETS}; set NASPRUNE_ASSETS to the folder that holds them")
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console(width=120, highlight=False)
    model = trained(options.net, ASSETS)
    data, unseen = Images.read(ASSETS).by_seed(options.seed)
    seen = data.calibration.subset(range(512))  # type: ignore[attr-defined]
    problem = prepared(model, EXAMPLE, seen.images, data.calibration, options.percent, options.seed)
    half = len(unseen) // 2
    first, other = (
        Held(seen.images[:REFIT_IMAGES], unseen.images[part], unseen.labels[part])
        for part in (slice(half), slice(half, None))
    )
    console.print(f"measuring {len(single_options(problem))} options one by one ...")
    start = time.perf_counter()
    slow = measured_alone(problem, first)
    seconds = time.perf_counter() - start
    rng = Random(options.seed)
    percent = f"{options.percent} % of the FLOPs"
    near, drawn = near_decisions(problem, options.decisions, rng), random_decisions(problem, options.decisions, rng)
    found = [
        singles(problem, slow),
        pairs(f"random, {percent}", problem, slow, other, drawn),
        pairs(f"near the solver's, {percent}", problem, slow, other, near),
    ]
    title = f"{options.net}, seed {options.seed}, {half} images each, {torch.get_num_threads()} thread(s)"
    console.print(ranks(found, title))
    console.print(answers(problem, slow, seconds, other))


if __name__ == "__main__":
    main()
