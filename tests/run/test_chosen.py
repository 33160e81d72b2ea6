"""More trials must not hurt: a later one wins over the knapsack's decision only beyond chance."""

import pytest
import torch

import nasprune
from nasprune.common.losses import divergence, divergences
from nasprune.run import chosen as module
from nasprune.run.chosen import beyond_chance
from tests.nets import TinyResNet


def test_a_steady_gain_is_beyond_chance_and_a_lucky_one_is_not():
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0))
    steady = noise - noise.mean() + 0.2  # four standard errors
    assert beyond_chance(steady, 2)
    assert beyond_chance(steady, 100)
    lucky = noise - noise.mean() + 0.1  # two of them: the best of a hundred is often as good
    assert beyond_chance(lucky, 2)
    assert not beyond_chance(lucky, 100)
    assert not beyond_chance(-steady, 2)
    assert not beyond_chance(steady[:1], 2)


def test_of_many_trials_that_differ_by_chance_few_pass():
    random = torch.Generator().manual_seed(0)
    passed = sum(any(beyond_chance(torch.randn(200, generator=random), 20) for _ in range(20)) for _ in range(200))
    assert passed <= 20  # one in twenty is meant


@pytest.mark.parametrize("shape", [(5, 3), (5, 1), (5, 4, 2, 2)])
def test_divergences_are_those_of_each_image(shape):
    target, outputs = torch.randn(2, *shape, dtype=torch.float64)
    found = divergences(target, outputs)
    assert found.shape == (5,)
    assert torch.allclose(found.sum(), divergence(target, outputs))


@pytest.fixture(scope="module")
def data():
    random = torch.Generator().manual_seed(0)
    return torch.randn(120, 3, 8, 8, generator=random), torch.randint(0, 4, (120,), generator=random)


def searched(data, **options):
    torch.manual_seed(0)
    net = TinyResNet(8, 2).eval()
    fast = {"trials": 6, "allow_chance": True, "reconstruct": "none"}
    return nasprune.search(net, data[0][:1], "45%", data=data, evaluator="kl", **fast, **options)


def test_the_first_trial_stays_where_the_others_are_not_nearer(data, monkeypatch):
    monkeypatch.setattr(module, "beyond_chance", lambda *_: False)
    result = searched(data)
    assert result.plan_of(0) == result.plan
    best = max(result.trials, key=lambda trial: trial.score)
    told = [note for note in result.report.notes if "not better beyond chance" in note]
    assert best.score > result.trials[0].score, "the case is of use"
    assert told


def test_a_later_trial_wins_where_it_is_nearer(data, monkeypatch):
    monkeypatch.setattr(module, "beyond_chance", lambda gains, _: bool(gains.mean() > 0))
    result = searched(data)
    best = max(result.trials, key=lambda trial: trial.score)
    assert best.score > result.trials[0].score, "the case is of use"
    assert result.plan_of(best.index) == result.plan


def test_other_controllers_take_the_best_score(data):
    result = searched(data, controller="random")
    assert result.report.score == max(trial.score for trial in result.trials)
