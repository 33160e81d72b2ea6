"""Discretising: one operation per edge, exactly within a budget, and the plain network that is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.errors import InputError
from nasprune.space.choices import OpChoice
from nasprune.supernet.genotype.genes import best_genotype
from nasprune.supernet.genotype.genotype import Gene, Genotype
from nasprune.supernet.genotype.spaces import OpCosts, Size, SupernetSpace
from nasprune.supernet.genotype.timing import op_times
from nasprune.supernet.price.counting import Counter, Counts, count_module
from nasprune.supernet.price.limits import Limit
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.trim.schedules import Stage
from nasprune.supernet.trim.trimming import check_affordable, check_count, choose, nothing


@dataclass(frozen=True)
class Architecture:
    """One network of a supernet.

    ops: choice -> the operation that stays, for the choices that the network has. counts: of `model`, for one item.
    genotype: where the supernet's space has genotypes; size: of the network that was budgeted. left: names in the
    model's state_dict that hold initial values because the supernet has none that fit. notes: sentences the user should
    read. report: a `TrimReport` of it. nanoseconds: of one forward pass, as predicted, for a budget of time.
    """

    model: nn.Module = field(repr=False)
    ops: Mapping[str, str]
    counts: Counts
    genotype: Genotype | None = None
    size: Size | None = None
    left: tuple[str, ...] = ()
    space: SupernetSpace | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    report: Any = field(default=None, repr=False)
    nanoseconds: int | None = None

    def build(self, size: Size | None = None) -> nn.Module:
        """A new, untrained network of the genotype at another size; by default at the one that was budgeted.

        Raises:
            InputError: the supernet's space is unknown, so there is nothing to build from.
        """
        if self.space is None or self.genotype is None:
            raise InputError("only supernets with `space=` have genotypes to build from; the network is `.model`")
        return self.space.network(self.genotype, size or self.size)


def discretised(
    structure: Structure, scores: Mapping[str, Tensor], limit: Limit | None, size: Size | None, *, inherit: bool
) -> Architecture:
    """The network with the greatest sum of scores among those within `limit`.

    With a space that is its genotype, built at `size`; else the supernet itself with one candidate left of each choice.

    Raises:
        BudgetError: the cheapest network is above the limit. VerificationError: it does not cost what was predicted.
    """
    if structure.space is None:
        kept = choose(structure, scores, Stage(keep=1), limit)
        small = structure.keep(kept)
        counted = count_module(small.net, tuple(small.inputs[0].shape))
        check_count(small.counts, counted, limit)
        ops = {choice.name: choice.ops[0] for choice in small.choices}
        nanoseconds = small.cost_of("latency") if limit is not None and limit.counter == "latency" else None
        return Architecture(small.net, ops, counted, nanoseconds=nanoseconds)
    return _of_space(structure, structure.space, scores, limit, size, inherit=inherit)


def check_network_affordable(structure: Structure, limit: Limit | None, size: Size | None) -> None:
    """Raises BudgetError where the cheapest network is above the limit: no score is needed to tell."""
    space = structure.space
    if limit is None or space is None:
        check_affordable(structure, limit)
        return
    costs = _costs(structure, space, size or space.sizes["search"], limit.counter)
    best_genotype(space.cells, _by_gene(structure, space, nothing(structure)), costs, limit.number)


def _of_space(
    structure: Structure,
    space: SupernetSpace,
    scores: Mapping[str, Tensor],
    limit: Limit | None,
    size: Size | None,
    *,
    inherit: bool,
) -> Architecture:
    size = size or space.sizes["search"]
    costs = _costs(structure, space, size, limit.counter if limit is not None else "fvcore")
    picked = best_genotype(space.cells, _by_gene(structure, space, scores), costs, limit.number if limit else None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = space.network(picked.genotype, size).eval()
    left = space.inherit(model, structure.net, picked.genotype) if inherit else tuple(model.state_dict())
    counted = count_module(model, size.input_shape)
    names: tuple[Counter, ...] = ("macs", "fvcore", "params")
    predicted = {name: space.costs(size, name).total(picked.genotype) for name in names}
    check_count(Counts(**predicted), counted, limit)
    ops = {
        f"{kind}/{space.cells[kind].edges.index((gene.source, gene.target))}": gene.op
        for kind, genes in picked.genotype.cells.items()
        for gene in genes
    }
    nanoseconds = picked.cost if costs.counter == "latency" else None
    return Architecture(model, ops, counted, picked.genotype, size, left, space, nanoseconds=nanoseconds)


def _costs(structure: Structure, space: SupernetSpace, size: Size, counter: Counter) -> OpCosts:
    if counter != "latency":
        return space.costs(size, counter)
    example = structure.inputs[0]
    return op_times(space, size, len(example), example.device)


def _by_gene(structure: Structure, space: SupernetSpace, scores: Mapping[str, Tensor]) -> dict[tuple[str, Gene], float]:
    """Scores of the choices "kind/edge" as scores of genes."""
    known: dict[str, OpChoice] = {choice.name: choice for choice in structure.choices}
    found = {}
    for kind, topology in space.cells.items():
        for number, (source, target) in enumerate(topology.edges):
            choice = known.get(f"{kind}/{number}")
            if choice is not None:
                unknown = [op for op in choice.ops if op not in topology.ops]
                if unknown:
                    raise InputError(
                        f"choice {choice.name!r} has the candidate {unknown[0]!r}, the {kind!r} cells of the space "
                        f"have {list(topology.ops)}; give `op_names` of the space, or leave it out"
                    )
                for op, value in zip(choice.ops, scores[choice.name].tolist(), strict=True):
                    found[kind, Gene(op, source, target)] = value
    return found
