"""Whether damages from one backward pass order decisions as cutting, refitting and measuring one by one does.

    python -m benchmarks.damage [--net resnet20] [--options 40] [--decisions 25] [--percent 50] [--seed 0] [--threads N]

Slow measurement: the network is cut, refitted on 256 images, and its outputs are compared with the dense network's on
images that neither the estimate nor the refit has seen, by the Kullback-Leibler divergence at temperatures 1 and 4.
Rank correlations (Spearman) between that and the estimate are printed for

- single options: one group narrowed or one block dropped, drawn at random from the search space;
- random decisions: every width and block drawn at random, then moved to just under the budget;
- near decisions: the solver's own answer with six choices drawn anew, moved to just under the budget. They differ
  little in harm, and telling them apart is what the solver is trusted with.

The estimate of a decision is the sum of the damages of its options.
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
from nasprune import registry
from nasprune.budget import Budget
from nasprune.cost.flops import CostModel
from nasprune.damage import Damages, damages
from nasprune.graph.model import ModelGraph
from nasprune.graph.trace import trace
from nasprune.knapsack import solve
from nasprune.reconstruct import reconstruct
from nasprune.repair import PricedSpace
from nasprune.selection import select
from nasprune.space import Decision
from nasprune.surgery import build

REFIT_IMAGES = 256
TEMPERATURES = (1.0, 4.0)
REDRAWN = 6


@dataclass(frozen=True)
class Problem:
    """A network, its priced space, criterion scores and damages. seconds: for the scores, and for all damages."""

    model: nn.Module
    graph: ModelGraph
    priced: PricedSpace
    scores: Mapping[str, Tensor]
    damages: Damages
    seconds: tuple[float, float]


@dataclass(frozen=True)
class Held:
    """Images that a cut network is refitted on, and others that it is measured on with the dense outputs for them."""

    refit: Tensor
    measure: Tensor
    dense: Tensor


@dataclass(frozen=True)
class Pairs:
    """Estimates and measurements of the same decisions. measured: by temperature. seconds: of all measurements."""

    name: str
    estimated: tuple[float, ...]
    measured: Mapping[float, tuple[float, ...]]
    seconds: float


def prepared(model: nn.Module, example: Tensor, images: Tensor, labelled: object, percent: int, seed: int) -> Problem:
    """Scores by `l2` and damages, as a search with data takes them. images: (n, ...), for the damages."""
    graph = trace(model, example)
    space = registry.search_space(graph, "widths")
    priced = PricedSpace(graph, space, CostModel(graph), Budget.parse(f"{percent}%"))
    start = time.perf_counter()
    scores = registry.scorer("l2").scores(model, graph, seed=seed, data=labelled)  # type: ignore[arg-type]
    scored = time.perf_counter()
    found = damages(model, graph, space, scores, torch.split(images, 128), refit=True, seed=seed)
    return Problem(model, graph, priced, scores, found, (scored - start, time.perf_counter() - scored))


def single_options(problem: Problem, count: int, rng: Random) -> list[Decision]:
    """The whole network but for one option, `count` different ones at most."""
    whole = dict(problem.priced.space.largest())
    every = [(choice.name, o) for choice in problem.priced.space.choices for o in choice.options[:-1]]
    return [Decision.of({**whole, name: option}) for name, option in rng.sample(every, min(count, len(every)))]


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


def estimated(problem: Problem, decision: Decision) -> float:
    """The sum of the damages of the decision's options; groups inside a dropped block harm no more."""
    blocks = {block.name: block for block in problem.graph.blocks}
    gone = {
        group for name, option in decision.items() if name in blocks and not option for group in blocks[name].groups
    }
    return sum(problem.damages[name][option] for name, option in decision.items() if name not in gone)


def measured(problem: Problem, held: Held, decision: Decision) -> dict[float, float]:
    """The divergence of the cut and refitted network, by temperature."""
    plan = select(problem.graph, problem.scores, decision)
    small = build(problem.model, problem.graph, plan).eval()
    reconstruct(problem.model, small, problem.graph, plan, held.refit)
    with torch.inference_mode():
        logits = torch.cat([small(part) for part in torch.split(held.measure, 128)])
    return {temperature: divergence(held.dense, logits, temperature) for temperature in TEMPERATURES}


def divergence(dense: Tensor, cut: Tensor, temperature: float) -> float:
    """KL(dense || cut) of the softmax at a temperature, mean over images, in nats times the temperature squared."""
    p, q = ((logits.double() / temperature).log_softmax(1) for logits in (dense, cut))
    return float((p.exp() * (p - q)).sum(1).mean()) * temperature**2


def pairs(name: str, problem: Problem, held: Held, decisions: Sequence[Decision]) -> Pairs:
    """Estimates and measures each decision."""
    start = time.perf_counter()
    found = [measured(problem, held, decision) for decision in decisions]
    seconds = time.perf_counter() - start
    by_temperature = {t: tuple(one[t] for one in found) for t in TEMPERATURES}
    return Pairs(name, tuple(estimated(problem, decision) for decision in decisions), by_temperature, seconds)


def table(found: Sequence[Pairs], title: str) -> Table:
    """One line for each kind of decision."""
    correlations = [f"Spearman, KL at T = {t:g}" for t in TEMPERATURES]
    shown = Table("decisions", "pairs", *correlations, "seconds, measured", title=title)
    for one in found:
        ranks = [f"{spearmanr(one.estimated, one.measured[t]).statistic:.3f}" for t in TEMPERATURES]
        shown.add_row(one.name, str(len(one.estimated)), *ranks, f"{one.seconds:.1f}")
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="resnet20")
    parser.add_argument("--options", type=int, default=40)
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
    model = trained(options.net, ASSETS)
    data, unseen = Images.read(ASSETS).by_seed(options.seed)
    seen = data.calibration.subset(range(512))  # type: ignore[attr-defined]
    problem = prepared(model, EXAMPLE, seen.images, data.calibration, options.percent, options.seed)
    with torch.inference_mode():
        held = Held(seen.images[:REFIT_IMAGES], unseen.images, model(unseen.images))
    rng = Random(options.seed)
    found = [
        pairs("single options", problem, held, single_options(problem, options.options, rng)),
        pairs(f"random, {options.percent} % FLOPs", problem, held, random_decisions(problem, options.decisions, rng)),
        pairs(
            f"near the solver's, {options.percent} %", problem, held, near_decisions(problem, options.decisions, rng)
        ),
    ]
    console = Console(width=120, highlight=False)
    console.print(table(found, f"{options.net}, {len(unseen)} unseen images, {torch.get_num_threads()} thread(s)"))
    every = sum(len(choice.options) - 1 for choice in problem.priced.space.choices)
    each = found[0].seconds / len(found[0].estimated)
    console.print(
        f"damages of all {every} options: {problem.seconds[1]:.1f} s from one backward pass over 512 images, and "
        f"{problem.seconds[0]:.1f} s for the scores; measured one by one, at {each:.2f} s each, they take "
        f"{each * every:.0f} s"
    )


if __name__ == "__main__":
    main()
