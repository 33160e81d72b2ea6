"""Training a supernet: both kinds of weights learn, on different images, and what is switched off stays so."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from nasprune import Supernet
from nasprune.data import ArrayDataset, load_data
from nasprune.errors import InputError
from nasprune.supernet.cut.removal import OFF
from nasprune.supernet.score.paths import on_path, sites
from nasprune.supernet.score.scoring import batch_statistics
from nasprune.supernet.train.training import ON_A_PATH, random_paths, train


class Toy(nn.Module):
    """Two candidates after a stem; the architecture weights are a parameter, or a plain tensor as in DARTS' code."""

    def __init__(self, *, plain: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.ops = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1), nn.AvgPool2d(3, 1, 1), nn.Identity()])
        self.head = nn.Linear(8 * 16, 10)
        alphas = torch.zeros(1, 3)
        if plain:
            self.alphas = alphas.requires_grad_()
            self.all = [self.alphas]
        else:
            self.alphas = nn.Parameter(alphas)

    def forward(self, x):
        x = self.stem(x)
        shares = self.alphas[0].softmax(0)
        mixed = sum(share * op(x) for share, op in zip(shares, self.ops, strict=True))
        return self.head(mixed.flatten(1)), None


def alphas_of(net: nn.Module) -> list[torch.Tensor]:
    return [net.alphas]


@pytest.fixture(scope="module")
def data():
    digits = load_data("digits")
    return replace(digits, train=digits.train.subset(range(512)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Toy()


@pytest.mark.parametrize("plain", [False, True])
def test_both_kinds_of_weights_learn_and_the_net_is_left_alone(data, plain):
    torch.manual_seed(0)
    net = Toy(plain=plain).train()
    before, alphas = copy.deepcopy(net.state_dict()), net.alphas.detach().clone()
    expected, epochs = torch.get_rng_state(), []
    trained = train(
        net, data, architecture=alphas_of, epochs=4, lr=0.1, batch_size=16, arch_lr=0.01, seed=0, on_epoch=epochs.append
    )
    assert torch.equal(torch.get_rng_state(), expected)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(net.alphas, alphas)
    assert net.training
    assert not trained.training
    assert [(epoch.number, epoch.of) for epoch in epochs] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert epochs[-1].validation_accuracy > 0.7
    assert not torch.equal(trained.alphas, alphas)
    assert trained.alphas.requires_grad
    assert all(parameter.requires_grad for parameter in trained.parameters())
    if plain:
        assert trained.all[0] is trained.alphas


def test_the_seed_fixes_everything(data, net):
    states = [
        train(net, data, architecture=alphas_of, epochs=1, seed=seed, device="cpu").state_dict() for seed in (1, 1, 2)
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not torch.equal(states[0]["head.weight"], states[2]["head.weight"])


def test_architecture_weights_rest_in_warm_up_and_weights_decay_without_them(data, net):
    trained = train(net, data, architecture=alphas_of, epochs=1, warmup_epochs=1, seed=0)
    assert torch.equal(trained.alphas, net.alphas)
    assert not torch.equal(trained.head.weight, net.head.weight)


class Tagged(ArrayDataset):
    """The first pixel of an image is its number."""

    def __init__(self, images, labels):
        tagged = images.clone()
        tagged[:, 0, 0, 0] = torch.arange(len(images)).float()
        super().__init__(tagged, labels)


def test_the_two_kinds_see_different_images(data):
    images = Tagged(data.train.images[:101], data.train.labels[:101])
    seen: dict[bool, set[int]] = {True: set(), False: set()}

    class Spy(Toy):
        def forward(self, x):
            if self.training:
                seen[self.alphas.requires_grad].update(x[:, 0, 0, 0].int().tolist())
            return super().forward(x)

    train(Spy(), replace(data, train=images), architecture=alphas_of, epochs=2, batch_size=17, seed=0)
    assert len(seen[True]) >= 45
    assert len(seen[False]) == 50
    assert not seen[True] & seen[False]


def test_without_architecture_weights_all_training_images_are_used(data):
    images, seen = Tagged(data.train.images[:64], data.train.labels[:64]), set()

    class Spy(Toy):
        def forward(self, x):
            if self.training:
                seen.update(x[:, 0, 0, 0].int().tolist())
            return super().forward(x)

    trained = train(Spy(), replace(data, train=images), architecture=lambda net: [], epochs=1, seed=0)
    assert seen == set(range(64))
    assert not torch.equal(trained.alphas, torch.zeros(1, 3))


def test_what_is_switched_off_stays_off_and_finite(data, net):
    with torch.no_grad():
        net.alphas[0, 2] = OFF
    trained = train(net, data, architecture=alphas_of, epochs=3, arch_lr=0.1, arch_weight_decay=0.1, seed=0)
    assert trained.alphas[0, 2] == OFF
    assert trained.alphas.isfinite().all()
    assert trained.alphas[0].softmax(0)[2] == 0


def test_what_requires_no_gradient_rests(data, net):
    net.alphas.requires_grad_(False)
    net.stem[0].weight.requires_grad_(False)
    trained = train(net, data, architecture=alphas_of, epochs=1, seed=0)
    assert torch.equal(trained.alphas, net.alphas)
    assert torch.equal(trained.stem[0].weight, net.stem[0].weight)
    assert not trained.stem[0].weight.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "`epochs` must be at least 1, got 0"),
        ({"epochs": 1, "batch_size": 1}, "`batch_size` must be at least 2"),
        ({"epochs": 1, "lr": 0.0}, "`lr` must be above 0"),
        ({"epochs": 1, "architecture": lambda net: [net.alphas.softmax(1)]}, "is computed from others"),
        ({"epochs": 1, "lr": 1e30, "clip": 1e9}, "use a lower `lr`"),
        ({"epochs": 1, "architecture": lambda net: list(net.parameters())}, "nothing to train"),
    ],
)
def test_what_cannot_be_done_is_said(data, net, options, message):
    with pytest.raises(InputError, match=message):
        train(net, data, **{"architecture": alphas_of, "seed": 0, **options})


def test_what_was_trained_on_single_paths_is_judged_on_single_paths(data, net):
    structure = Supernet.from_model(net, data.train.images[:2]).structure
    judged = random_paths(structure, 0)(net).eval()
    images = data.validation.images[:70]
    parts, given = images.split(ON_A_PATH), judged(images).split(ON_A_PATH)
    before = copy.deepcopy(net.state_dict())
    for some, logits in zip(parts, given, strict=True):
        single = []
        for op in range(3):
            places = sites(net, structure.mixed, structure.choices)
            with on_path(places, {"ops": op}), batch_statistics(net):
                single.append(net(some)[0])
        assert any(torch.allclose(logits, one) for one in single)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert judged(images[:1]).shape == (1, 10)


def test_epochs_tell_what_is_asked_to_be_judged(data, net):
    class Wrong(nn.Module):
        def forward(self, images):
            return torch.full((len(images), 10), torch.nan)

    epochs = []
    train(net, data, architecture=alphas_of, epochs=1, judged=lambda net: Wrong(), seed=0, on_epoch=epochs.append)
    assert epochs[0].validation_accuracy < 0.3
