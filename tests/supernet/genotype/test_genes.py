"""The best genotype within a budget, against all genotypes."""

from __future__ import annotations

import itertools
import random

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasprune.errors import BudgetError
from nasprune.supernet.genotype.genes import best_genotype, connected
from nasprune.supernet.genotype.genotype import Gene, Genotype
from nasprune.supernet.genotype.spaces import CellTopology, OpCosts

NB201 = CellTopology(
    inputs=1,
    edges=((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)),
    ops=("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"),
)
UNITS = {"nor_conv_1x1": 3_932_160, "nor_conv_3x3": 35_389_440}
COSTS = OpCosts("macs", 7_783_050, {("cell", *edge, op): UNITS.get(op, 0) for edge in NB201.edges for op in NB201.ops})
CELLS = {"cell": NB201}


def random_scores(seed: int, cells: dict[str, CellTopology]) -> dict[tuple[str, Gene], float]:
    rng = random.Random(seed)
    return {
        (kind, Gene(op, *edge)): round(rng.uniform(-1, 2), 3)
        for kind, cell in cells.items()
        for edge in cell.edges
        for op in cell.ops
    }


def all_cells(scores):
    """(cost, score, connected, has none) of all 15,625 cells."""
    per_edge = [[(op, UNITS.get(op, 0), scores["cell", Gene(op, *edge)]) for op in NB201.ops] for edge in NB201.edges]
    found = []
    for ops in itertools.product(*per_edge):
        graph = nx.DiGraph(edge for edge, op in zip(NB201.edges, ops, strict=True) if op[0] != "none")
        graph.add_nodes_from((0, 3))
        none = any(op[0] == "none" for op in ops)
        cost = COSTS.base + sum(op[1] for op in ops)
        found.append((cost, sum(op[2] for op in ops), nx.has_path(graph, 0, 3), none))
    return found


@pytest.mark.parametrize("allow_none", [False, True])
def test_equals_brute_force_on_all_nasbench_201_cells_at_20_budgets(allow_none):
    scores = random_scores(0, CELLS)
    cells = all_cells(scores)
    assert len(cells) == 15_625
    assert sum(joined for _, _, joined, _ in cells) == 15_284
    for step in range(20):
        limit = 7_783_050 + step * 11_500_000
        best = max(
            score for cost, score, joined, none in cells if cost <= limit and joined and (allow_none or not none)
        )
        picked = best_genotype(CELLS, scores, COSTS, limit, allow_none=allow_none)
        assert picked.score == pytest.approx(best, abs=1e-9)
        assert picked.cost == COSTS.total(picked.genotype) <= limit
        assert picked.score == pytest.approx(sum(scores["cell", gene] for gene in picked.genotype.cells["cell"]))
        edges = {(gene.source, gene.target) for gene in picked.genotype.cells["cell"] if gene.op != "none"}
        assert connected(NB201, edges)


def small_darts(ops: tuple[str, ...], nodes: int) -> CellTopology:
    edges = tuple((source, target) for target in range(2, 2 + nodes) for source in range(target))
    return CellTopology(2, edges, ops, inputs_per_node=2, concat=tuple(range(2, 2 + nodes)))


def brute_force(cells, scores, costs, limit):
    per_node = []
    for kind, cell in cells.items():
        for target in cell.nodes:
            sources = [source for source, node in cell.edges if node == target]
            options = []
            for pair in itertools.combinations(sources, 2):
                for ops in itertools.product([op for op in cell.ops if op != "none"], repeat=2):
                    genes = [Gene(op, source, target) for op, source in zip(ops, pair, strict=True)]
                    cost = sum(costs[kind, gene] for gene in genes)
                    options.append((cost, sum(scores[kind, gene] for gene in genes)))
            per_node.append(options)
    allowed = [
        sum(score for _, score in some)
        for some in itertools.product(*per_node)
        if costs.base + sum(cost for cost, _ in some) <= limit
    ]
    return max(allowed, default=None)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1.1))
def test_equals_brute_force_on_small_darts_cells(seed, share):
    rng = random.Random(seed)
    cells = {
        "normal": small_darts(("none", "skip", "sep"), 2),
        "reduce": small_darts(("none", "skip", "sep", "dil"), 1),
    }
    scores = random_scores(seed, cells)
    table = {
        (kind, *edge, op): rng.randrange(100) for kind, cell in cells.items() for edge in cell.edges for op in cell.ops
    }
    costs = OpCosts("macs", 50, table)
    limit = 50 + round(share * 600)
    best = brute_force(cells, scores, costs, limit)
    if best is None:
        with pytest.raises(BudgetError, match="cheapest genotype costs"):
            best_genotype(cells, scores, costs, limit)
        return
    picked = best_genotype(cells, scores, costs, limit)
    assert picked.score == pytest.approx(best, abs=1e-9)
    assert picked.cost <= limit
    for kind, cell in cells.items():
        for node in cell.nodes:
            into = [gene for gene in picked.genotype.cells[kind] if gene.target == node]
            assert len(into) == 2
            assert len({gene.source for gene in into}) == 2
            assert all(gene.op != "none" for gene in into)


def test_without_a_limit_it_is_the_rule_of_darts():
    """Per node the two edges with the strongest operations, as the paper's code chooses them."""
    ops = ("none", "skip", "sep", "dil")
    cells = {"normal": small_darts(ops, 4)}
    scores = random_scores(3, cells)
    costs = OpCosts("macs", 0, {(kind, gene.source, gene.target, gene.op): 1 for kind, gene in scores})
    picked = best_genotype(cells, scores, costs, None)
    for node in cells["normal"].nodes:
        strongest = {
            source: max((scores["normal", Gene(op, source, node)], op) for op in ops if op != "none")
            for source in range(node)
        }
        two = sorted(strongest, key=lambda source: -strongest[source][0])[:2]
        expected = {(strongest[source][1], source) for source in two}
        assert {(gene.op, gene.source) for gene in picked.genotype.cells["normal"] if gene.target == node} == expected
    assert isinstance(picked.genotype, Genotype)
    assert picked.genotype.concat["normal"] == (2, 3, 4, 5)
