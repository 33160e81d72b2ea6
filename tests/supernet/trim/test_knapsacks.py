"""Which candidates stay, against all selections; schedules and limits."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasprune import OpScorer, Size, Supernet, supernet_space
from nasprune.errors import BudgetError, InputError, UnknownNameError
from nasprune.space.choices import OpChoice
from nasprune.supernet.price.counting import Counts
from nasprune.supernet.price.limits import Limit, parse_limit
from nasprune.supernet.trim.knapsacks import best_subsets
from nasprune.supernet.trim.schedules import stages_of
from tests.supernet.toys import Toy, images

OPS = ("none", "skip", "conv1", "conv3")


@st.composite
def problems(draw):
    count = draw(st.integers(1, 3))
    choices = [OpChoice(f"c{i}", OPS[: draw(st.integers(2, 4))], (i,)) for i in range(count)]
    scores = {
        c.name: torch.tensor(draw(st.lists(st.integers(0, 50), min_size=len(c.ops), max_size=len(c.ops)))).double()
        for c in choices
    }
    costs = {c.name: draw(st.lists(st.integers(0, 20), min_size=len(c.ops), max_size=len(c.ops))) for c in choices}
    keep = {c.name: draw(st.integers(1, 4)) for c in choices}
    return choices, scores, costs, keep, draw(st.integers(0, 120))


def selections(choice, most):
    for size in range(1, most + 1):
        for some in itertools.combinations(range(len(choice.ops)), size):
            if set(some) - {0}:
                yield some


def worth(choice, scores, some):
    return sum(float(scores[choice.name][i]) for i in some if i != 0)


@settings(max_examples=150)
@given(problems())
def test_no_selection_is_worth_more(problem):
    choices, scores, costs, keep, limit = problem
    best = None
    for combined in itertools.product(*(selections(c, keep[c.name]) for c in choices)):
        cost = sum(costs[c.name][i] for c, some in zip(choices, combined, strict=True) for i in some)
        if cost <= limit:
            value = sum(worth(c, scores, some) for c, some in zip(choices, combined, strict=True))
            best = value if best is None else max(best, value)
    if best is None:
        with pytest.raises(BudgetError):
            best_subsets(choices, scores, costs, limit, keep)
        return
    found = best_subsets(choices, scores, costs, limit, keep)
    assert sum(costs[c.name][i] for c in choices for i in found[c.name]) <= limit
    assert all(len(found[c.name]) <= keep[c.name] and set(found[c.name]) - {0} for c in choices)
    assert sum(worth(c, scores, found[c.name]) for c in choices) == pytest.approx(best, abs=1e-2)


def test_without_a_limit_the_best_stay_in_order_of_their_scores():
    choice = OpChoice("c", OPS, (0,))
    scores = {"c": torch.tensor([9.0, -1.0, 3.0, -2.0])}
    costs = {"c": [0, 0, 5, 9]}
    for count, expected in ((1, (2,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (0, 1, 2, 3))):
        assert best_subsets([choice], scores, costs, None, {"c": count}) == {"c": expected}


def test_too_many_candidates_are_refused():
    choice = OpChoice("c", tuple(f"op{i}" for i in range(15)), (0,))
    with pytest.raises(InputError, match="15 candidates, at most 14"):
        best_subsets([choice], {"c": torch.ones(15)}, {"c": [1] * 15}, None, {"c": 3})


WHOLE = Counts(macs=1000, fvcore=1100, params=50)


@pytest.mark.parametrize(
    ("text", "counter", "limit"),
    [
        ("600MMACs", "fvcore", Limit(600_000_000, "macs")),
        ("600MFLOPs", "macs", Limit(600_000_000, "fvcore")),
        ("600M", "macs", Limit(600_000_000, "macs")),
        ("5MParams", "fvcore", Limit(5_000_000, "params")),
        ("60%", "fvcore", Limit(660, "fvcore")),
        ("60%", "macs", Limit(600, "macs")),
        ("50% of params", "macs", Limit(25, "params")),
    ],
)
def test_a_limit_names_its_counter(text, counter, limit):
    assert parse_limit(text, WHOLE, counter) == limit


class Never(OpScorer):
    def score(self, task):
        raise AssertionError("nothing is to be scored")


@pytest.mark.parametrize("space", [None, "nasbench201"])
def test_impossible_budgets_are_refused_before_anything_is_scored(space):
    if space is None:
        whole = Supernet.from_model(Toy(), images())
    else:
        space = supernet_space(space)
        whole = Supernet.from_model(space.supernet(Size(2, 1, resolution=8)), torch.randn(2, 3, 8, 8), space=space)
    for refuse in (whole.trim, whole.discretise):
        with pytest.raises(BudgetError, match="raise"):
            refuse("100Params" if space is None else "10MACs", scorer=Never())


@pytest.mark.parametrize("text", ["", "fast", "0M", "0%", "120%", "-5M", "8days"])
def test_other_budgets_are_refused(text):
    with pytest.raises(BudgetError):
        parse_limit(text, WHOLE)


def test_an_unknown_counter_is_refused():
    with pytest.raises(InputError, match="expected one of the counters"):
        parse_limit("60%", WHOLE, "flops")  # type: ignore[arg-type]


def test_schedules_say_how_many_stay():
    choice = OpChoice("c", OPS, (0,))
    scores = {"c": torch.tensor([0.0, 1.0, 3.0, 6.0])}
    (stage,) = stages_of("topk(k=2)")
    assert stage.keep_max([choice], scores) == {"c": 2}
    (stage,) = stages_of("threshold(share=0.25)")
    assert stage.keep_max([choice], scores) == {"c": 2}
    assert stages_of("threshold(share=0.9)")[0].keep_max([choice], scores) == {"c": 1}
    assert [(stage.keep, stage.epochs) for stage in stages_of("progressive(stages=[5, 3, 1], epochs=4)")] == [
        (5, 4),
        (3, 4),
        (1, 0),
    ]


@pytest.mark.parametrize(
    "text",
    ["topk(k=0)", "topk(k=1.5)", "threshold(share=0)", "threshold(share=1)", "progressive(stages=[3, 5])", "topk(n=2)"],
)
def test_impossible_schedules_are_refused(text):
    with pytest.raises(InputError):
        stages_of(text)
    with pytest.raises(UnknownNameError, match="unknown schedule 'topp'"):
        stages_of("topp")
