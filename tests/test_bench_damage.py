"""The parts of the benchmark of damages that need no trained weights."""

from __future__ import annotations

from random import Random

import pytest
import torch
from torch.nn import functional

from benchmarks import damage
from benchmarks.damage import Held, Pairs, divergence, estimated, measured, prepared
from nasprune.data import ArrayDataset
from nasprune.models import ResidualNet
from nasprune.space import Decision


@pytest.fixture(scope="module")
def problem() -> damage.Problem:
    torch.manual_seed(0)
    model = ResidualNet(input_shape=(3, 32, 32), widths=(8, 16), blocks=1, num_classes=10).eval()
    images = torch.randn(32, 3, 32, 32)
    return prepared(model, images[:1], images, ArrayDataset(images, torch.arange(32) % 10), 60, 0)


def test_the_divergence_is_torchs() -> None:
    dense, cut = torch.randn(5, 7).double(), torch.randn(5, 7).double()
    for t in (1.0, 4.0):
        expected = functional.kl_div(
            (cut / t).log_softmax(1), (dense / t).log_softmax(1), log_target=True, reduction="batchmean"
        )
        assert divergence(dense, cut, t) == pytest.approx(float(expected) * t * t)


def test_decisions_are_different_and_fit(problem: damage.Problem) -> None:
    rng = Random(0)
    whole = problem.priced.space.largest()
    singles = damage.single_options(problem, 10, rng)
    assert len(set(singles)) == 10
    assert all(sum(one[name] != whole[name] for name in whole) == 1 for one in singles)
    for decisions in (damage.random_decisions(problem, 5, rng), damage.near_decisions(problem, 5, rng)):
        assert len(decisions) == 5
        assert all(problem.priced.budget.allows(cost) for cost in problem.priced.costs(decisions))


def test_the_estimate_is_the_sum_of_what_is_left(problem: damage.Problem) -> None:
    whole = dict(problem.priced.space.largest())
    assert estimated(problem, Decision.of(whole)) == 0
    block = next(block for block in problem.graph.blocks if block.free and block.groups)
    narrowed = {name: problem.priced.space[name].options[0] for name in block.groups if name in whole}
    inside = Decision.of({**whole, **narrowed, block.name: 0})
    assert estimated(problem, inside) == problem.damages[block.name][0]


def test_keeping_everything_diverges_by_nothing(problem: damage.Problem) -> None:
    images = torch.randn(40, 3, 32, 32)
    with torch.no_grad():
        held = Held(images[:20], images[20:], problem.model(images[20:]))
    whole = measured(problem, held, problem.priced.space.largest())
    assert all(value < 1e-6 for value in whole.values())
    assert min(measured(problem, held, problem.priced.space.smallest()).values()) > 1e-5


def test_the_table_holds_rank_correlations() -> None:
    measurements = {t: (1.0, 3.0, 2.0) if t == 1 else (1.0, 2.0, 3.0) for t in damage.TEMPERATURES}
    shown = damage.table([Pairs("some", (0.1, 0.2, 0.3), measurements, 6.0)], "")
    assert [next(iter(column.cells)) for column in shown.columns] == ["some", "3", "0.500", "1.000", "6.0"]


def test_without_assets_it_says_so_and_ends(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(damage, "ASSETS", tmp_path)
    damage.main([])
    assert "NASPRUNE_ASSETS" in capsys.readouterr().out
