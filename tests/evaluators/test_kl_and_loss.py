"""Mean losses of the cut network, checked against whole-set computations with torch.distributions and by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, kl_divergence

from nasprune.errors import InputError
from nasprune.evaluators.accuracy import Accuracy
from nasprune.evaluators.kl import KL
from nasprune.evaluators.loss import Loss
from nasprune.refit.recalibrate import recalibrate
from tests.evaluators.test_accuracy import Given, task
from tests.nets import TinyResNet, images


class Pixels(nn.Module):
    """(n, 3, H, W) -> (n, 5, H, W)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1)
        with torch.no_grad():
            for value in self.parameters():
                value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x):
        return self.conv(x)


class Nothing(nn.Module):
    def forward(self, x):
        return [x.shape]


def given(dense, labels=None, count=150):
    inputs, numbers = images(count, seed=2)
    filled = task(images(40, seed=1), (inputs, numbers if labels is None else labels))
    return inputs, replace(filled, dense=dense)


def logits(net, inputs):
    with torch.no_grad():
        return net.eval()(inputs).movedim(1, -1).double()


@pytest.mark.parametrize("make", [lambda seed: TinyResNet(seed=seed), Pixels], ids=["classes", "pixels"])
def test_kl_is_the_mean_divergence_from_the_dense_network(make):
    dense, cut = make(0).train(), make(1)
    inputs, filled = given(dense)
    evaluator = KL(filled)
    first, second, same = (evaluator.evaluate(Given(net, refitted=True)) for net in (cut, cut, make(0)))
    assert dense.training
    both = [Categorical(logits=logits(net, inputs)) for net in (make(0), cut)]
    assert first == second == pytest.approx(-float(kl_divergence(*both).mean()), rel=1e-5)
    assert same == 0.0


def test_kl_is_the_same_where_nothing_is_remembered(monkeypatch):
    _, filled = given(TinyResNet(seed=0))
    candidate = Given(TinyResNet(seed=1))
    remembered = KL(filled).evaluate(candidate)
    monkeypatch.setattr("nasprune.evaluators.kl.REMEMBERED", 0)
    assert KL(filled).evaluate(candidate) == remembered


def test_loss_is_the_mean_log_probability_of_the_labels():
    net = TinyResNet(seed=3)
    inputs, filled = given(net)
    expected = Categorical(logits=logits(net, inputs)).log_prob(images(150)[1]).mean()
    assert Loss(filled).evaluate(Given(net, refitted=True)) == pytest.approx(float(expected), rel=1e-6)


def test_labels_of_pixels_below_zero_do_not_count():
    net = Pixels(0)
    labels = torch.randint(-1, 5, (20, 8, 8), generator=torch.Generator().manual_seed(0))
    inputs, filled = given(net, labels, count=20)
    known = labels >= 0
    expected = Categorical(logits=logits(net, inputs)[known]).log_prob(labels[known]).mean()
    assert Loss(filled).evaluate(Given(net)) == pytest.approx(float(expected), rel=1e-6)
    _, short = given(net, labels.short(), count=20)
    assert Loss(short).evaluate(Given(net)) == Loss(filled).evaluate(Given(net))


def test_accuracy_leaves_out_labels_below_zero_too():
    net = Pixels(0)
    labels = torch.randint(-1, 5, (20, 8, 8), generator=torch.Generator().manual_seed(0))
    inputs, filled = given(net, labels, count=20)
    known = labels >= 0
    expected = (logits(net, inputs).argmax(-1) == labels)[known].double().mean()
    assert Accuracy(filled).evaluate(Given(net)) == pytest.approx(float(expected))


@pytest.mark.parametrize("kind", [Accuracy, Loss])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.full((20,), -1), "needs labels, and no validation image has one"),
        (torch.arange(20), "the label 19, the model 4 outputs"),
        (torch.zeros(20, 2, dtype=torch.long), r"needs class numbers of shape.* got labels of shape \(20, 2\)"),
        (torch.full((20,), 0.5), r"needs class numbers of shape.* torch.float"),
    ],
    ids=["none", "too large", "two", "shares"],
)
def test_labels_that_are_no_classes_are_refused(kind, labels, message):
    _, filled = given(TinyResNet(), labels, count=20)
    with pytest.raises(InputError, match=message):
        kind(filled).evaluate(Given(TinyResNet()))


def test_kl_of_one_output_is_half_the_squared_change():
    dense, cut = (nn.Sequential(TinyResNet(seed=seed), nn.Linear(4, 1)) for seed in (0, 1))
    inputs, filled = given(dense)
    expected = 0.5 * (logits(dense, inputs) - logits(cut, inputs)).square().mean()
    assert KL(filled).evaluate(Given(cut, refitted=True)) == pytest.approx(-float(expected))
    assert expected > 0


def test_the_refitted_dense_network_is_not_run_to_be_compared_with_itself():
    _, filled = given(TinyResNet())
    same = Given(TinyResNet(), refitted=True, keep={})
    assert KL(filled).evaluate(same) == 0
    assert not same.made
    assert KL(filled).evaluate(replace(same, refitted=False)) < 0, "other statistics of batch norms change it"
    assert KL(filled).evaluate(replace(same, net=TinyResNet(seed=1), zeroed=True)) < 0, "zeros change it"


def test_kl_needs_no_labels():
    dense = TinyResNet()
    _, filled = given(dense, count=20)
    bare = replace(filled, validation=[(image, None) for image, _ in filled.validation])
    candidate = Given(TinyResNet(seed=1), refitted=True)
    assert KL(bare).evaluate(candidate) == KL(filled).evaluate(candidate)


@pytest.mark.parametrize("kind", [Accuracy, KL, Loss])
def test_what_cannot_be_measured_is_refused(kind):
    name = kind.__name__.lower()
    with pytest.raises(InputError, match=f"'{name}' needs data"):
        kind(task(images(8), None))
    _, filled = given(Nothing())
    with pytest.raises(InputError, match=rf"'{name}' needs a model that returns a tensor .* got a list"):
        kind(filled).evaluate(Given(Nothing()))


@pytest.mark.parametrize("kind", [KL, Loss])
def test_only_unrefitted_candidates_get_fresh_statistics(kind):
    _, filled = given(TinyResNet(seed=0))
    fresh = TinyResNet(seed=1)
    recalibrate(fresh, [images(40, seed=1)[0]])
    evaluator = kind(filled)
    expected = evaluator.evaluate(Given(fresh, refitted=True))
    assert evaluator.evaluate(Given(TinyResNet(seed=1))) == pytest.approx(expected, rel=1e-6)
    assert evaluator.evaluate(Given(TinyResNet(seed=1), refitted=True)) != pytest.approx(expected, rel=1e-3)
