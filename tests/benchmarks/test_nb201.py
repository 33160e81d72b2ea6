"""Published values of operation scores on NAS-Bench-201, from its table and nasprune's own selection."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks import nb201
from nasprune.errors import BudgetError

pytestmark = pytest.mark.skipif(
    not (nb201.FOLDER / "nb201_op_scores.csv").is_file(),
    reason=f"no NAS-Bench-201 table in {nb201.FOLDER}; set NASPRUNE_ASSETS to the folder that holds it",
)
# Two correlations that the published scores do not give.
DIFFER = {("discretised accuracy", 0): -0.30, ("discretised accuracy", 1): -0.42}


@pytest.fixture(scope="module")
def bench():
    return nb201.load(nb201.FOLDER)


def test_the_whole_space(bench):
    assert bench.accuracy.size == 15_625
    assert bench.accuracy.mean() == pytest.approx(87.1, abs=0.05)
    assert (bench.accuracy >= 93).mean() == pytest.approx(0.092, abs=5e-4)
    assert np.unravel_index(bench.accuracy.argmax(), bench.accuracy.shape) == (3, 3, 3, 1, 2, 3)
    assert bench.flops[3, 3, 3, 3, 3, 3] == 220_119_690


@pytest.mark.parametrize("label", nb201.SCORES)
def test_published_values(bench, label):
    found = nb201.outcome(bench, bench.of(label))
    for number, (value, published) in enumerate(zip(found, nb201.PUBLISHED[label], strict=True)):
        expected = DIFFER.get((label, number), published)
        if expected is not None:
            assert value == pytest.approx(expected, abs=0.6 if number in (6, 10) else 0.01)


@pytest.mark.parametrize(("mega", "best"), nb201.OPTIMA.items())
def test_best_network_within_a_budget(bench, mega, best):
    assert nb201.optimum(bench, mega) == pytest.approx(best, abs=0.01)


@pytest.mark.parametrize(("mega", "mean"), nb201.LARGEST.items())
def test_largest_networks_within_a_budget(bench, mega, mean):
    assert nb201.largest(bench, mega) == pytest.approx(mean, abs=0.01)


def test_candidates_at_random(bench):
    assert nb201.by_chance(bench) == pytest.approx(nb201.RANDOM, abs=0.4)  # published from 300 to 1,000 other draws


def test_uniform_choice_of_candidates_is_the_mean_of_the_space(bench):
    generator = np.random.default_rng(0)
    means = []
    for _ in range(100):
        where = np.ix_(*nb201.kept(generator.random((6, 5)), 3))
        means.append(bench.accuracy[where].mean())
    assert np.mean(means) == pytest.approx(87.1, abs=0.6)


@pytest.mark.parametrize("label", ["Zero-Cost-PT nwot", "DARTS alpha, final"])
def test_knapsack_is_as_good_as_trying_all_networks(bench, label):
    scores = bench.of(label)
    scores = scores - scores.min()
    sums = np.zeros((5,) * 6)
    for edge, op in itertools.product(range(6), range(5)):
        index = [slice(None)] * 6
        index[edge] = op
        sums[tuple(index)] += scores[edge, op]
    room = bench.flops - nb201.BASE
    for limit in np.linspace(0, room.max(), 20).astype(np.int64):
        picked = nb201.kept(bench.of(label), 1, int(limit))
        where = tuple(numbers[0] for numbers in picked)
        assert room[where] <= limit
        assert sums[where] == pytest.approx(sums[room <= limit].max(), rel=1e-5)


def test_a_budget_below_everything_is_refused(bench):
    with pytest.raises(BudgetError):
        nb201.kept(bench.of("FLOPs order"), 1, -1)
