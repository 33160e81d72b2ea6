"""Genotypes: which operation sits on which edge of which kind of cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nasprune.errors import InputError


@dataclass(frozen=True)
class Gene:
    """One operation on one edge. source, target: node numbers within the cell; the cell's inputs come first, from 0."""

    op: str
    source: int
    target: int

    def __post_init__(self) -> None:
        if not 0 <= self.source < self.target:
            raise InputError(
                f"expected an edge from an earlier node to a later one, got {self.source} -> {self.target} for "
                f"{self.op!r}; nodes are numbered from 0, the cell's inputs first"
            )


@dataclass(frozen=True)
class Genotype:
    """cells: kind of cell ("normal", "reduce", or "cell" where there is one kind) -> genes sorted by target, in order.

    concat: kind of cell -> the nodes whose outputs are concatenated; empty where the last node is the output.

    Genes given in another order are sorted by target; those of one target stay in the order given. Equal genotypes have
    equal hashes.
    """

    cells: Mapping[str, tuple[Gene, ...]]
    concat: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cells = {kind: tuple(sorted(genes, key=lambda gene: gene.target)) for kind, genes in self.cells.items()}
        object.__setattr__(self, "cells", cells)
        object.__setattr__(self, "concat", {kind: tuple(nodes) for kind, nodes in self.concat.items()})

    def __hash__(self) -> int:
        return hash((frozenset(self.cells.items()), frozenset(self.concat.items())))
