"""Genotypes: which operation sits on which edge of which kind of cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Gene:
    """One operation on one edge. source, target: node numbers within the cell; the cell's inputs come first, from 0."""

    op: str
    source: int
    target: int


@dataclass(frozen=True)
class Genotype:
    """cells: kind of cell ("normal", "reduce", or "cell" where there is one kind) -> genes sorted by target, in order.

    concat: kind of cell -> the nodes whose outputs are concatenated; empty where the last node is the output.
    """

    cells: Mapping[str, tuple[Gene, ...]]
    concat: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
