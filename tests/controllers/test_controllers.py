from __future__ import annotations

import random
import sys
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasprune.controllers.auto import Auto
from nasprune.controllers.evolution import Evolution
from nasprune.controllers.nni import NniEvolution, NniRandom, NniTPE
from nasprune.controllers.optuna import OptunaNSGA2, OptunaTPE
from nasprune.controllers.random import RandomSearch
from nasprune.controllers.sensitivity import Sensitivity
from nasprune.controllers.threshold import GlobalThreshold
from nasprune.controllers.uniform import Uniform
from nasprune.cost.budget import Budget, Cost
from nasprune.cost.flops import CostModel
from nasprune.cut.selection import best_units, keep_order
from nasprune.errors import InputError, PlanError
from nasprune.run.trace import trace
from nasprune.space.choices import Decision
from nasprune.space.priced import PricedSpace
from nasprune.space.shares import cost_shares
from nasprune.space.trials import Trial, pareto_front
from tests.fakes import graph_of, group, priced, resnet_like, space_of
from tests.nets import EXAMPLE, TinyResNet

ALL = [Uniform, RandomSearch, Evolution, NniTPE, NniEvolution, NniRandom, OptunaTPE, OptunaNSGA2]


def score(problem, decision):
    """Rewards keeping the stem and punishes wide late layers."""
    return decision["stem"] / 32 - sum(decision[c.name] for c in problem.space.widths[-6:]) / 2000


def toward_middle(problem, decision):
    """Rewards widths at half."""
    return -sum((decision[c.name] / c.options[-1] - 0.5) ** 2 for c in problem.space.widths)


def run(controller, problem, trials, seed=0, rate=score):
    """Asks, fits and tells `trials` times."""
    history = []
    for index in range(trials):
        proposal = controller.ask()
        if proposal is None:
            break
        problem.space.check(proposal)
        decision = problem.fit(proposal, Random(f"{seed}/{index}"), grow=controller.fills)
        trial = Trial(index, decision, problem.costs([decision])[0], rate(problem, decision), 0.0)
        controller.tell(trial)
        history.append(trial)
    return history


@pytest.fixture(scope="module")
def problem():
    return priced(resnet_like(), "50%", step=8)


@pytest.fixture(scope="module")
def few():
    """A problem of few choices, widths and blocks."""
    return priced(resnet_like(stages=1, depth=2), "50%", step=8)


@pytest.mark.parametrize("kind", ALL)
def test_same_seed_same_proposals_and_the_global_generators_are_left_alone(kind, few):
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = run(kind(few, seed=3), few, 40)
    random.seed(99)
    second_before = random.getstate()
    second = run(kind(few, seed=3), few, 40)
    assert [trial.decision for trial in first] == [trial.decision for trial in second]
    assert random.getstate() == second_before
    random.setstate(before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


@pytest.mark.parametrize("kind", ALL[1:])
def test_another_seed_gives_other_proposals(kind, problem):
    first, second = (run(kind(problem, seed=seed), problem, 10) for seed in (0, 1))
    assert [trial.decision for trial in first] != [trial.decision for trial in second]


def test_uniform_proposes_one_common_share_within_budget(problem):
    proposal = Uniform(problem, seed=0).ask()
    shares = [proposal[c.name] / c.options[-1] for c in problem.space.widths]
    assert max(shares) - min(shares) <= 0.25  # the grid of the narrowest groups
    assert problem.budget.allows(problem.costs([proposal])[0])
    assert len(run(Uniform(problem, seed=0), problem, 5)) == 1


def test_evolution_beats_uniform_and_random_search(problem):
    best = {kind: max(t.score for t in run(kind(problem, seed=0), problem, 100)) for kind in ALL[:3]}
    assert best[Evolution] > best[RandomSearch] > best[Uniform]


@pytest.mark.parametrize("kind", [NniRandom, NniTPE])
def test_a_space_that_is_used_up_ends_the_search(kind):
    problem = priced(graph_of([group("stem", 4)]), "100%")
    assert len(run(kind(problem, seed=0), problem, 50)) <= 50


@pytest.mark.parametrize("kind", [NniTPE, OptunaTPE])
def test_tpe_learns(kind):
    problem = priced(graph_of([group(name, 32) for name in "abcd"]), "60%")
    gains = []
    for seed in (0, 1, 2):
        scores = [trial.score for trial in run(kind(problem, seed=seed), problem, 60, rate=toward_middle)]
        gains.append(sum(scores[-15:]) - sum(scores[:15]))
    assert sum(gains) > 0.5


def test_nsga2_spreads_over_the_costs_below_the_budget_and_its_front_moves(problem):
    history = run(OptunaNSGA2(problem, seed=0), problem, 160)
    fill = [problem.budget.fill(trial.cost) for trial in history]
    assert max(fill) <= 1
    assert min(fill) < 0.6
    assert max(fill) > 0.95
    front = pareto_front(history)
    assert len(front) > 5
    assert len({trial.index for trial in front} & set(range(32))) < len(front) / 2


def test_without_optuna_the_error_says_how_to_get_it(problem, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'nasprune\[optuna\]'"):
        OptunaTPE(problem, seed=0)


def harms(problem, seed=0):
    rng = Random(seed)
    return {c.name: {option: 4 * rng.random() for option in c.options[:-1]} for c in problem.space.choices}


def test_evolution_starts_at_given_decisions_and_stays_valid(problem):
    seeds = [problem.space.scaled(0.5), problem.space.scaled(0.3).replaced("layer1.1", 0)]
    controller = Evolution(problem, seed=0, seeds=seeds, population=8)
    history = run(controller, problem, 60)
    assert [trial.decision for trial in history[:2]] == [problem.fit(s, Random(f"0/{i}")) for i, s in enumerate(seeds)]
    assert max(t.score for t in history) > max(t.score for t in history[:2])
    with pytest.raises(PlanError, match="one option for each choice"):
        Evolution(problem, seed=0, seeds=[Decision.of({"stem": 8})])


def test_evolution_starts_at_the_knapsacks_decision_where_harms_are_known():
    graph = trace(TinyResNet(), EXAMPLE)
    problem = PricedSpace(graph, space_of(graph), CostModel(graph), Budget.parse("50%"))
    known = problem.with_damages(lambda: harms(problem))
    knapsack, equal = (make(known, seed=5).ask() for make in (Sensitivity, Uniform))
    controller = Evolution(known, seed=0)
    assert [controller.ask(), controller.ask()] == [knapsack, equal]
    assert knapsack != equal == Evolution(problem, seed=0).ask()


def test_auto_proposes_the_knapsacks_decision_and_then_searches_near_it():
    graph = trace(TinyResNet(depth=3), EXAMPLE)
    problem = PricedSpace(graph, space_of(graph), CostModel(graph), Budget.parse("50%"))
    problem = problem.with_damages(lambda: harms(problem))
    history = run(Auto(problem, seed=0), problem, 80, rate=toward_middle)
    (knapsack,) = run(Sensitivity(problem, seed=5), problem, 3, rate=toward_middle)
    assert history[0].decision == knapsack.decision
    assert len({trial.decision for trial in history}) > 40
    assert max(trial.score for trial in history) > history[0].score

    def distance(trial):
        return sum(
            abs(trial.decision[c.name] - knapsack.decision[c.name]) / c.options[-1] for c in problem.space.widths
        )

    plain = run(RandomSearch(problem, seed=0), problem, 80, rate=toward_middle)
    assert sum(map(distance, history[1:17])) < sum(map(distance, plain[1:17]))


def test_auto_needs_damages(problem):
    with pytest.raises(InputError, match="damages measured on data"):
        Auto(problem, seed=0).ask()


def scored(problem, seed=0, low=0.0):
    generator = torch.Generator().manual_seed(seed)
    scores = {c.name: torch.rand(c.options[-1], generator=generator) ** 4 + low for c in problem.space.widths}
    return problem.with_scores(lambda: scores), scores


def unit_by_unit(problem, scores):
    """Drops the unit of least value until the budget is kept; values and order as the controller's docstring has it."""
    shares = cost_shares(problem)
    values = [
        (float(value / scores[c.name].double().mean()) / shares[c.name], c.name)
        for c in problem.space.widths
        for value in scores[c.name].double()
    ]
    options = dict(problem.space.largest())
    for _, name in sorted(values):
        if problem.budget.allows(problem.costs([options])[0]):
            break
        options[name] = max(options[name] - 1, 1)
    return Decision.of(options)


@pytest.mark.parametrize("share", [80, 50, 20])
def test_global_is_what_dropping_the_least_valuable_unit_again_and_again_gives(share):
    problem, scores = scored(priced(resnet_like(2, 2, 12), f"{share}%"))
    proposal = GlobalThreshold(problem, seed=0).ask()
    assert proposal == unit_by_unit(problem, scores)
    assert proposal == GlobalThreshold(problem, seed=1).ask()
    assert len(run(GlobalThreshold(problem, seed=0), problem, 5)) == 1


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_global_takes_any_grid_partition_and_sign(low):
    items = [group("stem", 12), group("a", 12, cells=3), group("b", 24, cells=2), group("c", 8)]
    problem, _ = scored(priced(graph_of(items), "40%", step=2), low=low)
    proposal = GlobalThreshold(problem, seed=0).ask()
    problem.space.check(proposal)
    assert problem.budget.allows(problem.costs([proposal])[0])
    assert GlobalThreshold(problem.with_scores(lambda: {item.name: torch.zeros(item.width) for item in items}), seed=0)


def test_global_without_scores_or_with_a_budget_below_all_widths():
    with pytest.raises(InputError, match="criterion's scores"):
        GlobalThreshold(priced(resnet_like(2, 2, 12), "50%"), seed=0).ask()
    problem, _ = scored(priced(resnet_like(2, 2, 12), "50%"))
    assert GlobalThreshold(problem, seed=0).ask()
    tight, _ = scored(priced(resnet_like(2, 2, 12), "1.5%"))
    (trial,) = run(GlobalThreshold(tight, seed=0), tight, 2)
    assert tight.budget.allows(trial.cost)


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_the_order_in_which_units_stay_is_that_of_selection(cells):
    item = group("g", 12, cells=cells)
    scores = torch.rand(12, generator=torch.Generator().manual_seed(cells))
    order = keep_order(item, scores)
    for kept in range(cells, 13, cells):
        assert tuple(sorted(order[:kept])) == best_units(item, scores, kept)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20))
def test_the_front_is_what_comparing_all_pairs_leaves(points):
    decision = Decision.of({"a": 1})
    trials = [Trial(i, decision, Cost(flops, 0, 0), float(score), 0.0) for i, (flops, score) in enumerate(points)]

    def beats(one, other):
        equal = (one.cost.flops, one.score) == (other.cost.flops, other.score)
        least = one.cost.flops <= other.cost.flops and one.score >= other.score
        return least and (not equal or one.index < other.index)

    expected = [trial for trial in trials if not any(beats(other, trial) for other in trials)]
    assert list(pareto_front(trials)) == sorted(expected, key=lambda trial: trial.cost.flops)


@given(st.integers(0, 2**31), st.sampled_from(["70%", "15%"]))
def test_fitting_without_growing_only_shrinks(seed, budget):
    problem = priced(resnet_like(2, 2, 16), budget)
    decision = problem.space.sample(Random(seed))
    fitted = problem.fit(decision, Random(seed), grow=False)
    assert problem.budget.allows(problem.costs([fitted])[0])
    if problem.budget.allows(problem.costs([decision])[0]):
        assert problem.costs([fitted]) == problem.costs([decision])
    inside = {name for block in problem.graph.blocks if not fitted[block.name] for name in block.groups}
    assert all(fitted[name] <= decision[name] for name in decision if name not in inside)
