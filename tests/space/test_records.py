"""Units, budgets, decisions, plans and trials: parsed strictly, printed with units, JSON both ways."""

from __future__ import annotations

import json
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasprune.cost.budget import Budget, Cost
from nasprune.cost.units import scaled, short
from nasprune.cut.plan import PrunePlan
from nasprune.cut.recorded import InputSpec, TensorSpec
from nasprune.errors import BudgetError, InputError, PlanError, UnknownNameError
from nasprune.run.report import SearchReport
from nasprune.space.choices import BlockChoice, Decision, SearchSpace, WidthChoice
from nasprune.space.trials import Trial
from tests.toys import tiny_report

SPACE = SearchSpace((WidthChoice("a", (4, 8, 16)), WidthChoice("b", (3, 6)), BlockChoice("block")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2GFLOPs", Budget(flops=2 * 10**9)),
        ("1.5 GMACs", Budget(flops=1_500_000_000)),
        ("300mflops", Budget(flops=3 * 10**8)),
        ("60%", Budget(flops_share=Fraction(3, 5))),
        ("33.3% of params", Budget(params_share=Fraction(333, 1000))),
        ("5MParams", Budget(params=5_000_000)),
        ("8ms", Budget(seconds=0.008)),
        ("2GFLOPs,20MParams", Budget(flops=2 * 10**9, params=20_000_000)),
    ],
)
def test_budgets_parse(text: str, expected: Budget) -> None:
    assert Budget.parse(text) == expected


@pytest.mark.parametrize("text", ["", "2", "2GB", "GFLOPs", "-1GFLOPs", "1GFLOPs,50%", "0%", "120%", "0MFLOPs", "nan%"])
def test_budgets_that_make_no_sense_are_refused_with_a_reason(text: str) -> None:
    with pytest.raises(BudgetError, match=r"GFLOPs|above zero|twice|share"):
        Budget.parse(text)


def test_shares_resolve_exactly_and_round_down() -> None:
    resolved = Budget.parse("33.3%,50% params").resolve(Cost(1000, 7, 0))
    assert resolved == Budget(flops=333, params=3)
    assert resolved.allows(Cost(333, 3, 0))
    assert not resolved.allows(Cost(334, 3, 0))
    assert not resolved.allows(Cost(1, 4, 0))
    assert resolved.fill(Cost(333, 0, 0)) == 1.0


@given(st.integers(1, 10**15))
def test_short_numbers_are_within_a_thousandth(number: int) -> None:
    value, unit = short(number, "FLOPs").split()
    assert scaled(value, unit.removesuffix("FLOPs")) == pytest.approx(number, rel=1e-3)


@given(st.randoms(use_true_random=False))
def test_decisions_survive_json_and_name_themselves(rng: random.Random) -> None:
    decision = SPACE.sample(rng)
    SPACE.check(decision)
    trial = Trial(3, decision, Cost(1, 2, 3), 0.25, 1.5)
    again = Trial.from_json(trial.to_json())
    assert again == trial
    assert again.decision.digest == Decision.of(dict(reversed(list(decision.items())))).digest


def test_decisions_outside_the_space_are_refused() -> None:
    with pytest.raises(PlanError, match="missing"):
        SPACE.check(Decision.of({"a": 4}))
    with pytest.raises(PlanError, match=r"'b' has options \(3, 6\), got 5"):
        SPACE.check(SPACE.largest().replaced("b", 5))


def test_space_ends_and_size() -> None:
    assert SPACE.size == 12
    assert dict(SPACE.smallest()) == {"a": 4, "b": 3, "block": 0}
    assert dict(SPACE.scaled(0.5)) == {"a": 8, "b": 3, "block": 1}


@given(st.sets(st.integers(0, 50), min_size=1), st.sets(st.text("abc.", min_size=1)))
def test_plans_survive_json(kept: set[int], blocks: set[str]) -> None:
    plan = PrunePlan(
        {"w": (3, 4)},
        {"g": tuple(sorted(kept))},
        tuple(sorted(blocks)),
        None,
        InputSpec((TensorSpec((1, 3), "float32"),)),
    )
    assert PrunePlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "keep": {"a": [2, 1]}}'])
def test_texts_that_are_no_plan_are_refused(text: str) -> None:
    with pytest.raises(PlanError):
        PrunePlan.from_json(text)


def test_reports_survive_json_and_older_ones_have_no_front() -> None:
    report = tiny_report()
    assert SearchReport.from_json(report.to_json()) == report
    older = json.loads(report.to_json())
    del older["front"]
    assert SearchReport.from_json(json.dumps(older)) == tiny_report(front=())
    with pytest.raises(InputError, match="not a search report"):
        SearchReport.from_json(json.dumps({**older, "front": [{"trial": 1}]}))


def test_a_tampered_trial_is_refused() -> None:
    line = Trial(0, SPACE.largest(), Cost(1, 1, 1), 0.5, 0.1).to_json()
    with pytest.raises(InputError, match="digest"):
        Trial.from_json(line.replace('"a": 16', '"a": 8'))


def test_unknown_names_come_with_the_nearest() -> None:
    error = UnknownNameError("criterion", "fpgn", ["l1", "fpgm", "random"])
    assert str(error) == "unknown criterion 'fpgn': did you mean fpgm? known: fpgm, l1, random"
