from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasprune.errors import BudgetError, PlanError
from tests.fakes import ChainPrices, graph_of, group, priced, resnet_like


@given(st.integers(0, 2**31), st.sampled_from(["70%", "40%", "15%", "40%,30%Params", "9MFLOPs"]))
def test_fit_is_allowed_deterministic_idempotent_and_maximal(seed, budget):
    problem = priced(resnet_like(2, 2, 16), budget)
    decision = problem.space.sample(Random(seed))
    fitted = problem.fit(decision, Random(seed))
    problem.space.check(fitted)
    assert problem.budget.allows(problem.costs([fitted])[0])
    assert fitted == problem.fit(decision, Random(seed))
    assert fitted == problem.fit(fitted, Random(seed + 1))
    for choice in problem.space.widths:
        at = choice.options.index(fitted[choice.name])
        if choice.options[at] < choice.options[-1]:
            larger = fitted.replaced(choice.name, choice.options[at + 1])
            assert not problem.budget.allows(problem.costs([larger])[0])


@pytest.mark.parametrize("share", [80, 50, 25])
def test_fit_fills_the_budget(share):
    problem = priced(resnet_like(), f"{share}%", step=8)
    for seed in range(20):
        rng = Random(seed)
        cost = problem.costs([problem.fit(problem.space.sample(rng), rng)])[0]
        assert 0.98 < problem.budget.fill(cost) <= 1


def test_blocks_go_only_when_widths_do_not_suffice():
    problem = priced(resnet_like(), "30%", step=8)
    fitted = problem.fit(problem.space.largest(), Random(0))
    assert all(fitted[block.name] for block in problem.space.blocks)
    tight = priced(graph_of(list(resnet_like().groups), list(resnet_like().blocks)), "0.1%", step=16)
    with pytest.raises(BudgetError):
        tight.fit(tight.space.largest(), Random(0))


def test_a_block_stays_dropped_while_widths_can_use_the_budget_and_its_groups_are_canonical():
    problem = priced(resnet_like(), "50%", step=8)
    wanted = problem.space.largest().replaced("layer1.1", 0).replaced("layer1.1.conv1", 8)
    fitted = problem.fit(wanted, Random(0))
    assert fitted["layer1.1"] == 0
    assert fitted["layer1.1.conv1"] == problem.space["layer1.1.conv1"].options[-1]


def test_a_dropped_block_comes_back_when_there_is_room():
    problem = priced(resnet_like(), "100%", step=8)
    fitted = problem.fit(problem.space.largest().replaced("layer1.1", 0), Random(0))
    assert fitted == problem.space.largest()


def test_an_impossible_budget_names_the_least_reachable_and_what_is_frozen():
    graph = graph_of([group("a", 8), group("b", 8, frozen="softmax"), group("c", 8, frozen="softmax")])
    problem = priced(graph, "1%")
    with pytest.raises(BudgetError, match=r"least reachable is .*FLOPs.* with 2 of 3 groups frozen \(2 × softmax\)"):
        problem.require_feasible()


def test_a_decision_of_another_space_is_refused():
    with pytest.raises(PlanError):
        priced(resnet_like(), "50%").fit(priced(graph_of([group("a", 8)]), "50%").space.largest(), Random(0))


def test_a_fit_takes_far_fewer_price_lookups_than_there_are_steps_to_try(monkeypatch):
    problem = priced(resnet_like(4, 6, 64), "50%", step=8)
    calls = []
    rows = ChainPrices.rows

    def counting(prices, matrix):
        calls.append(len(matrix))
        return rows(prices, matrix)

    monkeypatch.setattr(ChainPrices, "rows", counting)
    for seed in range(20):
        problem.fit(problem.space.sample(Random(seed)), Random(seed))
    options = sum(len(choice.options) for choice in problem.space.choices)
    assert options > 1000
    assert len(calls) / 20 < 30
