from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasprune.cost.budget import Budget
from nasprune.cost.flops import CostModel, measure
from nasprune.cut.plan import PrunePlan
from nasprune.cut.surgery import build
from nasprune.errors import BudgetError, InputError, PlanError
from nasprune.models.nets import digits_net, resnet20
from nasprune.run.trace import trace
from nasprune.space import interplay, knapsack
from nasprune.space.choices import BlockChoice, SearchSpace, WidthChoice
from nasprune.space.interplay import Interplay
from nasprune.space.knapsack import solve
from nasprune.space.priced import PricedSpace
from nasprune.testing import SampleNet
from tests.graph.structures import STRUCTURES, traced


def problem_of(graph, budget, *, options=3, most=7):
    """The first `most` free choices on a coarse grid, blocks first."""
    blocks = [BlockChoice(block.name) for block in graph.free_blocks][: most // 2]
    widths = []
    for group in graph.free_groups[: most - len(blocks)]:
        step = group.multiple_of
        counts = np.rint(np.linspace(step, group.width, options) / step).astype(int) * step
        widths.append(WidthChoice(group.name, tuple(sorted(set(counts.tolist())))))
    return PricedSpace(graph, SearchSpace((*widths, *blocks)), CostModel(graph), Budget.parse(budget))


def random_damages(space, seed):
    rng = random.Random(seed)
    return {choice.name: {option: 4 * rng.random() for option in choice.options[:-1]} for choice in space.choices}


def harm_of(problem, damages, decision):
    gone = {name for block in problem.graph.blocks if decision.get(block.name) == 0 for name in block.groups}
    return sum(damages[name].get(option, 0.0) for name, option in decision.items() if name not in gone)


def least_harm(problem, damages):
    names = [choice.name for choice in problem.space.choices]
    decisions = [
        dict(zip(names, row, strict=True))
        for row in itertools.product(*(choice.options for choice in problem.space.choices))
    ]
    table = problem.prices.table(decisions)
    allowed = np.ones(len(decisions), dtype=bool)
    if problem.budget.flops is not None:
        allowed &= table.flops <= problem.budget.flops
    if problem.budget.params is not None:
        allowed &= table.params <= problem.budget.params
    return min(harm_of(problem, damages, decisions[i]) for i in np.flatnonzero(allowed))


def least_share(problem, quantity):
    """The budget that only about the smallest decision keeps, in percent."""
    least = getattr(problem.cheapest(), quantity)
    return 100 * least / getattr(problem.dense, quantity)


def vgg():
    """A plain chain: every group multiplies with its neighbours."""
    widths = (3, 8, 8, 16, 16, 24, 24)
    layers = [
        layer
        for c_in, c_out in itertools.pairwise(widths)
        for layer in (nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU())
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5))


NETS: dict[str, tuple] = {
    "vgg": (vgg, (1, 3, 8, 8)),
    "sample": (SampleNet, (1, 3, 8, 8)),
    "digits": (digits_net, (1, 1, 8, 8)),
    "resnet20": (resnet20, (1, 3, 32, 32)),
}
SHARED = {case.name: case for case in STRUCTURES if case.free}
NAMES = (*NETS, *SHARED)


@pytest.fixture(scope="module")
def graphs():
    known = {}

    def of(name):
        if name in SHARED:
            return traced(SHARED[name]).graph
        if name not in known:
            make, shape = NETS[name]
            torch.manual_seed(0)
            known[name] = trace(make().eval(), torch.zeros(shape))
        return known[name]

    return of


@pytest.mark.parametrize("budget", ["{f:.2f}%", "{p:.2f}%Params", "{f:.2f}%,{p:.2f}%Params", "8ms"])
@pytest.mark.parametrize("name", NAMES)
def test_solve_is_optimal_on_real_graphs(name, budget, graphs):
    graph = graphs(name)
    open_ = problem_of(graph, "100%")
    for seed, position in enumerate((0.15, 0.4, 0.7)):
        shares = {
            key: least + position * (100 - least)
            for key, least in (("f", least_share(open_, "flops")), ("p", least_share(open_, "params")))
        }
        problem = PricedSpace(graph, open_.space, open_.prices, Budget.parse(budget.format(**shares)))
        damages = random_damages(problem.space, seed)
        decision = solve(problem, damages)
        problem.space.check(decision)
        assert problem.budget.allows(problem.costs([decision])[0])
        assert harm_of(problem, damages, decision) == pytest.approx(least_harm(problem, damages), rel=1e-9, abs=1e-9)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), flops=st.integers(20, 90), params=st.integers(20, 90))
def test_solve_is_optimal_for_any_damages(seed, flops, params, graphs):
    problem = problem_of(graphs("sample"), f"{flops}%,{params}%Params", options=4)
    damages = random_damages(problem.space, seed)
    try:
        problem.require_feasible()
    except BudgetError:
        with pytest.raises(BudgetError, match="least reachable"):
            solve(problem, damages)
        return
    decision = solve(problem, damages)
    assert problem.budget.allows(problem.costs([decision])[0])
    assert harm_of(problem, damages, decision) == pytest.approx(least_harm(problem, damages), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_tables_add_up_to_the_predicted_cost(name, graphs):
    problem = problem_of(graphs(name), "99%,99%Params", most=100)
    tables = Interplay(problem, random_damages(problem.space, 0))
    rng = random.Random(0)
    for _ in range(10):
        assignment = {i: rng.randrange(len(variable)) for i, variable in enumerate(tables.variables)}
        cost = problem.costs([tables.decision(assignment)])[0]
        assert tables.totals(assignment)[1:].tolist() == [cost.flops, cost.params]


@pytest.mark.parametrize("budget", ["50%,45%Params", "35%"])
@pytest.mark.parametrize("name", ["sample", "digits", "vgg"])
def test_the_built_network_keeps_the_budget(name, budget, graphs):
    graph = graphs(name)
    problem = problem_of(graph, budget, options=6, most=100)
    decision = solve(problem, random_damages(problem.space, 1))
    keep = {
        group.name: sorted(unit for cell in group.partitions for unit in cell[: len(cell) * kept // group.width])
        for group in graph.groups
        if (kept := decision.get(group.name, group.width)) < group.width
    }
    drop = sorted(block.name for block in graph.blocks if decision.get(block.name) == 0)
    make, shape = NETS[name]
    plan = PrunePlan(graph.signature, keep={name: tuple(kept) for name, kept in keep.items()}, drop=tuple(drop))
    built = measure(build(make().eval(), graph, plan), torch.zeros(shape))
    assert problem.budget.allows(built)


@pytest.mark.parametrize("budget", ["60%", "70%,80%Params"])
@pytest.mark.parametrize("name", ["sample", "digits", "resnet20", "vgg"])
def test_with_hubs_searched_and_blocks_apart_it_stays_near_the_optimum(name, budget, graphs, monkeypatch):
    """The ways taken by large networks: no enumeration of hubs, no joint options, no elimination."""
    problem = problem_of(graphs(name), budget)
    damages = random_damages(problem.space, 3)
    best = least_harm(problem, damages)
    for changed in ({"COMBINATIONS": 0}, {"JOINT": 9}, {"LARGEST_TABLE": 1}):
        for constant, value in changed.items():
            for module in (knapsack, interplay):
                monkeypatch.setattr(module, constant, value, raising=False)
        decision = solve(problem, damages)
        assert problem.budget.allows(problem.costs([decision])[0])
        assert best - 1e-9 <= harm_of(problem, damages, decision) <= 1.25 * best
        assert decision == solve(problem, damages)


def test_a_dropped_block_frees_its_groups(graphs):
    problem = problem_of(graphs("sample"), "60%", options=4)
    damages = {name: dict.fromkeys(given, 5.0) for name, given in random_damages(problem.space, 0).items()}
    damages |= {block.name: {0: 0.1} for block in problem.space.blocks}
    decision = solve(problem, damages)
    assert decision == problem.space.largest().replaced("first", 0).replaced("second", 0) or 0 in decision.values()
    for block in problem.graph.blocks:
        if decision[block.name] == 0:
            assert all(decision[name] == problem.space[name].options[-1] for name in block.groups)


def test_a_budget_that_all_keeps_needs_no_cut(graphs):
    problem = problem_of(graphs("digits"), "100%,100%Params")
    assert solve(problem, random_damages(problem.space, 0)) == problem.space.largest()


def test_grids_that_are_too_fine_are_thinned(graphs, monkeypatch):
    monkeypatch.setattr(interplay, "GRID", 3)
    problem = problem_of(graphs("digits"), "50%", options=12)
    decision = solve(problem, random_damages(problem.space, 0))
    assert problem.budget.allows(problem.costs([decision])[0])


def test_damages_are_checked(graphs):
    problem = problem_of(graphs("sample"), "50%")
    damages = random_damages(problem.space, 0)
    name = problem.space.widths[0].name
    with pytest.raises(PlanError, match="no choices"):
        solve(problem, {**damages, "nowhere": {0: 1.0}})
    with pytest.raises(InputError, match="missing"):
        solve(problem, {**damages, name: {}})
    with pytest.raises(InputError, match="finite"):
        solve(problem, {**damages, name: dict.fromkeys(damages[name], -1.0)})


def test_an_impossible_budget_is_refused_with_the_least_reachable(graphs):
    problem = problem_of(graphs("sample"), "0.1%")
    with pytest.raises(BudgetError, match="least reachable"):
        solve(problem, random_damages(problem.space, 0))
