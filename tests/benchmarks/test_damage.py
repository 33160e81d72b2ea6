"""The parts of the benchmark of damages that need no trained weights."""

from __future__ import annotations

from random import Random

import pytest
import torch
from torch.nn import functional

from benchmarks import damage
from benchmarks.damage import Held, Pairs, divergence, estimated, measured, prepared
from nasprune.data import ArrayDataset
from nasprune.models.nets import ResidualNet
from nasprune.space.choices import Decision


@pytest.fixture(scope="module")
def problem() -> damage.Problem:
    torch.manual_seed(0)
    model = ResidualNet(input_shape=(3, 32, 32), widths=(8, 16), blocks=1, num_classes=10).eval()
    images = torch.randn(32, 3, 32, 32)
    return prepared(model, images[:1], images, ArrayDataset(images, torch.arange(32) % 10), 60, 0)


@pytest.fixture(scope="module")
def held() -> Held:
    torch.manual_seed(1)
    images = torch.randn(40, 3, 32, 32)
    return Held(images[:20], images[20:], torch.arange(20) % 10)


def test_the_divergence_is_torchs() -> None:
    dense, cut = torch.randn(5, 7).double(), torch.randn(5, 7).double()
    t = damage.TEMPERATURE
    expected = functional.kl_div(
        (cut / t).log_softmax(1), (dense / t).log_softmax(1), log_target=True, reduction="batchmean"
    )
    assert divergence(dense, cut) == pytest.approx(float(expected) * t * t)


def test_decisions_are_different_and_fit(problem: damage.Problem) -> None:
    rng = Random(0)
    whole = problem.priced.space.largest()
    singles = [damage.alone(problem, *one) for one in damage.single_options(problem)]
    assert len(set(singles)) == sum(len(choice.options) - 1 for choice in problem.priced.space.choices)
    assert all(sum(one[name] != whole[name] for name in whole) == 1 for one in singles)
    for decisions in (damage.random_decisions(problem, 5, rng), damage.near_decisions(problem, 5, rng)):
        assert len(decisions) == 5
        assert all(problem.priced.budget.allows(cost) for cost in problem.priced.costs(decisions))


def test_the_estimate_is_the_sum_of_what_is_left(problem: damage.Problem) -> None:
    whole = dict(problem.priced.space.largest())
    assert estimated(problem, problem.damages, Decision.of(whole)) == 0
    block = next(block for block in problem.graph.blocks if block.free and block.groups)
    narrowed = {name: problem.priced.space[name].options[0] for name in block.groups if name in whole}
    inside = Decision.of({**whole, **narrowed, block.name: 0})
    assert estimated(problem, problem.damages, inside) == problem.damages[block.name][0]


def test_keeping_everything_diverges_by_nothing(problem: damage.Problem, held: Held) -> None:
    assert measured(problem, held, problem.priced.space.largest()).harm < 1e-6
    assert measured(problem, held, problem.priced.space.smallest()).harm > 1e-5


def test_the_slow_way_prices_every_option_and_the_solver_takes_it(problem: damage.Problem, held: Held) -> None:
    slow = damage.measured_alone(problem, held)
    assert {name: set(harms) for name, harms in slow.items()} == {
        choice.name: set(choice.options) for choice in problem.priced.space.choices
    }
    name, option = damage.single_options(problem)[0]
    assert slow[name][option] == measured(problem, held, damage.alone(problem, name, option)).harm
    shown = damage.answers(problem, slow, 1.0, held)
    assert len(list(shown.columns[2].cells)) == 3
    assert damage.singles(problem, slow).estimates[-1] == damage.singles(problem, slow).measured


def test_the_table_holds_rank_correlations() -> None:
    found = Pairs("some", ((0.1, 0.2, 0.3), (3.0, 2.0, 1.0), (1.0, 3.0, 2.0)), (1.0, 3.0, 2.0))
    shown = damage.ranks([found], "")
    assert [next(iter(column.cells)) for column in shown.columns] == ["some", "3", "0.500", "-0.500", "1.000"]


def test_without_assets_it_says_so_and_ends(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(damage, "ASSETS", tmp_path)
    damage.main([])
    assert "NASPRUNE_ASSETS" in capsys.readouterr().out
