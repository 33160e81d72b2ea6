"""Training learns, chooses by validation, touches nothing else, and is fixed by its seed."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nasprune.cut.surgery import build
from nasprune.cut.trial_plans import half_plan
from nasprune.data import ArrayDataset, load_data
from nasprune.data.augment import flip_and_shift
from nasprune.data.batches import batches
from nasprune.errors import InputError
from nasprune.run.names import scorer
from nasprune.run.trace import trace
from nasprune.train.finetune import finetune
from nasprune.train.loops import Schedule
from nasprune.train.measures import accuracy
from tests import toys

tiny_net = partial(toys.tiny_net, blocks=2)  # learns the digits in a few epochs


@pytest.fixture(scope="module")
def data():
    digits = load_data("digits")
    return replace(digits, train=digits.train.subset(range(512)))


def test_it_learns_and_leaves_the_model_and_the_global_generator(data):
    model = tiny_net().train()
    model.conv1.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(11)
    expected, epochs = torch.get_rng_state(), []
    trained = finetune(model, data, epochs=3, lr=0.1, on_epoch=epochs.append)
    assert torch.equal(torch.get_rng_state(), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert not trained.training
    assert torch.equal(trained.conv1.weight, model.conv1.weight)
    assert accuracy(trained, data.test) > accuracy(model, data.test) + 0.3
    assert [(epoch.number, epoch.of) for epoch in epochs] == [(1, 3), (2, 3), (3, 3)]
    assert accuracy(trained, data.validation) == epochs[-1].validation_accuracy
    assert [epoch.rate > 0 for epoch in epochs] == [True] * 3


def test_the_seed_fixes_the_weights(data):
    states = [finetune(tiny_net(), data, epochs=1, seed=seed).state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not torch.equal(states[0]["conv1.weight"], states[2]["conv1.weight"])


@pytest.fixture(scope="module")
def model(data):
    return finetune(tiny_net(), data, epochs=6, lr=0.1)


def test_the_best_epoch_is_never_worse_on_validation(data, model):
    epochs = []
    chosen = finetune(model, data, epochs=2, lr=0.2, choose="best", on_epoch=epochs.append)
    best = max(accuracy(model, data.validation), *(epoch.validation_accuracy for epoch in epochs))
    assert accuracy(chosen, data.validation) == best


def test_a_rate_that_destroys_is_lowered_and_said(data, model, caplog):
    epochs = []
    tuned = finetune(model, data, epochs=2, lr=1e4, on_epoch=epochs.append)
    assert accuracy(tuned, data.validation) >= accuracy(model, data.validation) - 0.05
    assert "a rate of 1e+04 diverged in epoch 1: back to the start, on with 1e+03" in caplog.text
    assert epochs[0].note.startswith("a rate of ")
    assert [epoch.number for epoch in epochs] == [1, 2]


def test_what_diverges_at_any_rate_ends_with_the_start(data, model, caplog):
    tuned = finetune(model, data, epochs=1, lr=1e30)
    assert all(torch.equal(value, tuned.state_dict()[name]) for name, value in model.state_dict().items())
    assert "training diverged in epoch 1 even with a rate of" in caplog.text


def test_worse_than_the_start_on_fresh_images_is_the_start(data, model, caplog):
    noise = torch.randint(0, 10, (len(data.train),), generator=torch.Generator().manual_seed(0))
    wrong = replace(data, train=ArrayDataset(data.train.images, noise))
    tuned = finetune(model, wrong, epochs=3, lr=0.1)
    assert all(torch.equal(value, tuned.state_dict()[name]) for name, value in model.state_dict().items())
    assert "so the start is the result" in caplog.text or "diverged" in caplog.text


def test_images_that_were_learned_by_heart_are_named(data, caplog):
    known = replace(data, validation=data.train)
    finetune(finetune(tiny_net(), known, epochs=8, lr=0.1), known, epochs=1)
    assert "it has probably been trained on them" in caplog.text


def test_the_default_rate_is_gentle_with_what_was_trained(data, model):
    rates = []
    for net in (model, tiny_net()):
        steps = []
        finetune(net, data, epochs=1, on_step=steps.append)
        rates.append(max(step.rate for step in steps))
        assert [(step.step, step.steps) for step in steps] == [(number, 8) for number in range(1, 9)]
        assert steps[-1].left == 0
        assert all(step.images > 0 and 0 <= step.accuracy <= 1 for step in steps)
    assert rates == [0.01, 0.05]


def test_adamw_smoothing_and_features_train_as_well(data, model):
    graph = trace(model, data.train.images[:1])
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    small = build(model, graph, plan).eval()
    before = accuracy(small, data.validation)
    found = SimpleNamespace(model=small, plan=plan, graph=graph)
    tuned = finetune(found, data, epochs=3, optimizer="adamw", lr=3e-3, smoothing=0.1, teacher=model, feature_share=0.1)
    assert accuracy(tuned, data.validation) > before
    with pytest.raises(InputError, match="`feature_share` compares features with the teacher's: give `teacher`"):
        finetune(small, data, teacher=model, feature_share=0.1)


def test_it_stops_when_asked(data, model, caplog):
    calls = iter(range(100))
    epochs = []
    finetune(model, data, epochs=3, should_stop=lambda: next(calls) == 10, on_epoch=epochs.append)
    assert len(epochs) == 1
    assert "stopped after 1 whole epochs, as asked" in caplog.text


def test_one_class_or_one_image_teaches_nothing(data):
    same = replace(data, train=ArrayDataset(data.train.images, torch.full_like(data.train.labels, 3)))
    with pytest.raises(InputError, match="all 512 training images of data 'digits' have the label 3"):
        finetune(tiny_net(), same, epochs=1)
    with pytest.raises(InputError, match="has 1 image to train on; give at least two"):
        finetune(tiny_net(), replace(data, train=data.train.subset([0])), epochs=1)
    finetune(tiny_net(), same, epochs=1, teacher=tiny_net(1), soft_share=1.0)


def test_a_teacher_alone_can_teach(data, model):
    noise = torch.randint(0, 10, (len(data.train),), generator=torch.Generator().manual_seed(0))
    wrong = ArrayDataset(data.train.images, noise)
    taught, misled = (
        finetune(tiny_net(seed=1), replace(data, train=wrong), epochs=8, teacher=model, soft_share=share)
        for share in (1.0, 0.0)
    )
    assert accuracy(taught, data.test) > accuracy(misled, data.test) + 0.2


def test_schedule_rises_then_falls_to_nearly_nothing():
    schedule = Schedule(1.0, 100, 0.1)
    rates = [schedule.next() for _ in range(100)]
    assert rates[:2] == [0.1, 0.2]
    assert rates[9] == rates[10] == 1.0
    assert rates[-1] == pytest.approx((1 + math.cos(math.pi * 89 / 90)) / 2)
    assert all(a >= b for a, b in pairwise(rates[9:]))


def test_augmentation_is_seeded_and_keeps_the_shape():
    images = torch.randn(6, 3, 8, 8)
    first, second = (flip_and_shift(images, torch.Generator().manual_seed(0)) for _ in range(2))
    assert first.shape == images.shape
    assert torch.equal(first, second)
    assert not torch.equal(first, images)


def test_batches_of_any_dataset_agree():
    arrays = ArrayDataset(torch.randn(5, 2), torch.arange(5))
    listed = [arrays[index] for index in range(5)]
    order = [4, 0, 3]
    for (a, b), (c, d) in zip(batches(arrays, 2, order), batches(listed, 2, order), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)


@pytest.mark.parametrize(
    "option",
    [
        *({"epochs": 0}, {"lr": 0.0}, {"batch_size": 1}, {"soft_share": 2.0}, {"warmup": 1.0}, {"lr": math.inf}),
        *({"choose": "first"}, {"optimizer": "lion"}, {"smoothing": 1.0}, {"average": 1.0}, {"clip": -1.0}),
    ],
)
def test_options_out_of_range(data, option):
    with pytest.raises(InputError, match=rf"`{next(iter(option))}` must be"):
        finetune(tiny_net(), data, **option)


def test_images_of_nan_are_named(data):
    images = torch.full((40, 3), float("nan"))
    with pytest.raises(InputError, match="image 0 holds NaN"):
        finetune(nn.Linear(3, 2), (images, torch.arange(40) % 2), epochs=1)
    parts = replace(data, validation=ArrayDataset(data.validation.images / 0, data.validation.labels))
    with pytest.raises(InputError, match="the loss on validation images is nan before any training"):
        finetune(tiny_net(), parts, epochs=1)


@pytest.mark.parametrize("label", [-1, 50])
def test_images_without_a_class_are_refused(data, label):
    parts = replace(data, train=ArrayDataset(data.train.images, torch.full_like(data.train.labels, label)))
    with pytest.raises(InputError, match=rf"labels from {label} to {label}.*Give labelled data"):
        finetune(tiny_net(), parts, epochs=1)
    graph = trace(tiny_net().eval(), data.train.images[:1])
    with pytest.raises(InputError, match="Give labelled data"):
        scorer("taylor").scores(tiny_net().eval(), graph, data=parts.train)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = tiny_net()

    def forward(self, x):
        found = self.net(x)
        return found, found


class InDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = tiny_net()

    def forward(self, x):
        return {"logits": self.net(x)}


def test_outputs_in_a_container_are_trained_on(data):
    assert finetune(InDict(), data, epochs=1, teacher=InDict())


def test_what_it_cannot_train_is_told(data):
    with pytest.raises(InputError, match=r"expected a model that gives \(n, classes, ...\), got a tuple"):
        finetune(Pair(), data, epochs=1)
    with pytest.raises(InputError, match=r"gives images of shape .* does not take"):
        finetune(nn.Conv2d(3, 4, 3), data, epochs=1)
    assert accuracy(Pair(), data.test) == accuracy(tiny_net(), data.test)
