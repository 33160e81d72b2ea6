"""Judging trims by networks whose quality is known: every way to keep k operations on each of six edges, enumerated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb
from statistics import fmean

import numpy as np
import torch

from nasprune import OpChoice
from nasprune.supernet.trim.knapsacks import best_subsets

OPS = ("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = 6
WINDOW = 2.0
"""Spaces whose mean costs are no further apart, in million multiply-adds, cost the same."""
CHOICES = tuple(OpChoice(f"cell/{edge}", OPS, (edge,)) for edge in range(EDGES))

Scores = np.ndarray
"""(6, 4), higher = keep."""
Subsets = tuple[tuple[int, ...], ...]
"""For each edge the numbers of the operations that stay."""


@dataclass(frozen=True)
class Judge:
    """Networks of six edges with one of four operations each.

    quality: (4,) * 6, higher is better. base: million multiply-adds without any operation; costs: of each, (4,).
    """

    quality: np.ndarray
    base: float
    costs: tuple[float, ...]

    @cached_property
    def spaces(self) -> Mapping[int, Spaces]:
        """By how many operations stay on every edge."""
        return {k: Spaces.of(self, k) for k in (1, 2, 3)}

    def networks_within(self, subsets: Subsets, budget: float) -> float:
        """The quality of the best network of a space that costs no more than the budget; NaN where there is none."""
        cost = self.base + np.add.reduce(
            np.meshgrid(*[[self.costs[op] for op in some] for some in subsets], indexing="ij")
        )
        within = self.quality[np.ix_(*subsets)][cost <= budget + 1e-6]
        return float(within.max()) if within.size else float("nan")

    def kept(self, scores: Scores, k: int, budget: float) -> Subsets:
        """What nasprune's knapsack keeps where networks of the space may cost `budget` on average: k on each edge."""
        units = [round(1e6 * cost) for cost in self.costs]
        by_name = {
            one.name: torch.from_numpy(np.ascontiguousarray(row)) for one, row in zip(CHOICES, scores, strict=True)
        }
        room = int(k * 1e6 * (budget - self.base))
        picked = best_subsets(CHOICES, by_name, dict.fromkeys(by_name, units), room, dict.fromkeys(by_name, k))
        return tuple(picked[one.name] for one in CHOICES)


@dataclass(frozen=True)
class Spaces:
    """All spaces with k operations an edge. quality, cost: means over the networks of each, (C(4, k),) * 6."""

    k: int
    subsets: tuple[tuple[int, ...], ...]
    quality: np.ndarray
    cost: np.ndarray

    @classmethod
    def of(cls, judge: Judge, k: int) -> Spaces:
        subsets = tuple(combinations(range(len(OPS)), k))
        members = np.zeros((len(subsets), len(OPS)))
        for row, some in zip(members, subsets, strict=True):
            row[list(some)] = 1 / k
        quality = judge.quality
        for _ in range(EDGES):  # each round turns the first axis from operations to subsets and moves it to the end
            quality = np.tensordot(quality, members, axes=(0, 1))
        each = members @ np.array(judge.costs)
        cost = judge.base + np.add.reduce(np.meshgrid(*[each] * EDGES, indexing="ij"))
        assert quality.size == comb(len(OPS), k) ** EDGES
        return cls(k, subsets, quality, cost)

    def percentile(self, quality: float, cost: float) -> float:
        """How many per cent of the spaces of equal mean cost are worse than one of this quality, ties counting half."""
        others = self.quality[np.abs(self.cost - cost) <= WINDOW + 1e-9]
        worse = (others < quality - 1e-9).sum()
        equal = (np.abs(others - quality) <= 1e-9).sum()
        return float(100 * (worse + equal / 2) / others.size)

    def optimum(self, budget: float) -> float:
        """The quality of the best space within a budget of mean cost."""
        return float(self.quality[self.cost <= budget + 1e-6].max())


@dataclass(frozen=True)
class Verdict:
    """Of one trim. percentile: at equal cost. quality, cost: means over the space. best: network within the budget."""

    k: int
    budget: float
    percentile: float
    quality: float
    cost: float
    best: float


def verdict(judge: Judge, scores: Scores, k: int, budget: float) -> Verdict:
    """Of what the knapsack keeps, which may be fewer operations than k on an edge where the rest is too dear."""
    return judged(judge, judge.kept(scores, k, budget), k, budget)


def judged(judge: Judge, kept: Subsets, k: int, budget: float) -> Verdict:
    quality = float(judge.quality[np.ix_(*kept)].mean())
    cost = judge.base + sum(fmean(judge.costs[op] for op in some) for some in kept)
    best = judge.networks_within(kept, budget)
    return Verdict(k, budget, judge.spaces[k].percentile(quality, cost), quality, cost, best)


def by_chance(judge: Judge, k: int, budget: float, draws: int = 200) -> Iterator[Verdict]:
    """Random worths through the same knapsack."""
    generator = np.random.default_rng(0)
    for _ in range(draws):
        yield verdict(judge, generator.random((EDGES, len(OPS))), k, budget)


def mean_of(verdicts: Sequence[Verdict], what: str) -> float:
    return float(np.nanmean([getattr(one, what) for one in verdicts]))
