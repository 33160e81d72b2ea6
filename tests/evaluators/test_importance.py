from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.overrides import TorchFunctionMode

from nasprune.base import EvaluationTask
from nasprune.cut.selection import best_units
from nasprune.evaluators.importance import Importance, kept_shares
from nasprune.space.choices import Decision
from nasprune.space.priced import PricedSpace
from nasprune.space.shares import cost_shares
from tests.fakes import graph_of, group, priced, resnet_like


@dataclass(frozen=True)
class Proposal:
    decision: Decision


@pytest.fixture(scope="module")
def task():
    graph = resnet_like(2, 2, 16)
    generator = torch.Generator().manual_seed(0)
    scores = {item.name: torch.rand(item.width, generator=generator) for item in graph.free_groups}
    return EvaluationTask(graph, nn.Identity(), scores, priced(graph, "50%"))


def test_the_dense_network_keeps_everything_and_less_is_worse(task):
    evaluator = Importance(task)
    largest = task.problem.space.largest()
    assert evaluator.evaluate(Proposal(largest)) == pytest.approx(1.0)
    for choice in task.problem.space.choices:
        scores = [evaluator.evaluate(Proposal(largest.replaced(choice.name, option))) for option in choice.options]
        assert scores == sorted(scores)
        assert len(set(scores)) == len(scores)


def test_a_dropped_block_is_no_better_than_its_groups_at_almost_nothing(task):
    evaluator = Importance(task)
    largest = task.problem.space.largest()
    thin = largest.replaced("layer0.0.conv1", 1).replaced("layer0.0.conv2", 1)
    dropped = largest.replaced("layer0.0", 0)
    assert 0 < evaluator.evaluate(Proposal(dropped)) < evaluator.evaluate(Proposal(thin))
    assert evaluator.evaluate(Proposal(dropped.replaced("layer0.0.conv1", 1))) == evaluator.evaluate(Proposal(dropped))


@given(st.lists(st.floats(-2, 5, width=32), min_size=6, max_size=6), st.integers(1, 3))
def test_shares_are_those_of_the_units_that_selection_keeps(values, cells):
    item = group("g", 6, cells=cells)
    scores = torch.tensor(values)
    shifted = (scores.double() - min(float(scores.min()), 0.0)).square()
    if float(shifted.sum()) <= 1e-6:
        return
    shares = kept_shares(item, scores)
    assert shares[0] == 0
    for kept in range(cells, 7, cells):
        units = list(best_units(item, scores, kept))
        assert shares[kept // cells] == pytest.approx(float(shifted[units].sum() / shifted.sum()))


def test_equal_scores_count_units():
    assert kept_shares(group("g", 4), torch.zeros(4)) == [0, 0.25, 0.5, 0.75, 1.0]


def test_with_equal_scores_the_first_units_cut_lose_what_they_save():
    graph = graph_of([group(name, 1000) for name in "abcd"])
    problem = priced(graph, "50%")
    evaluator = Importance(EvaluationTask(graph, nn.Identity(), {n: torch.ones(1000) for n in "abcd"}, problem))
    largest = problem.space.largest()
    for name in "abcd":
        cut = largest.replaced(name, 999)
        dense, cost = (one.flops for one in problem.costs([largest, cut]))
        assert -math.log(evaluator.evaluate(Proposal(cut))) == pytest.approx((dense - cost) / dense, rel=1e-3)


@pytest.mark.parametrize(("budget", "quantity"), [("50%", "flops"), ("50%Params", "params")])
def test_weights_are_shares_of_the_budgeted_cost(budget, quantity):
    graph = resnet_like(2, 2, 16)
    problem = priced(graph, budget, step=4)
    dense, gone = problem.costs([problem.space.largest(), problem.space.largest().replaced("layer0.1", 0)])
    expected = 1 - getattr(gone, quantity) / getattr(dense, quantity)
    assert cost_shares(problem)["layer0.1"] == pytest.approx(expected)


class NoTensors(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        pytest.fail(f"torch was called: {func}")


def test_a_candidate_is_neither_priced_nor_run(task, monkeypatch):
    evaluator = Importance(task)
    proposal = Proposal(task.problem.space.smallest())
    expected = evaluator.evaluate(proposal)
    monkeypatch.setattr(PricedSpace, "costs", lambda *arguments: pytest.fail("priced"))
    with NoTensors():
        assert evaluator.evaluate(proposal) == expected
