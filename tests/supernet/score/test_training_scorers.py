"""Scorers that train, by hand and on toy supernets where only some candidates are of use."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nasprune import InputError, registry
from nasprune.supernet.genotype.operations import OPERATIONS
from nasprune.supernet.score.naming import op_scorer
from tests.supernet.score.edges import Edges, structure_of, task_of

PAIR = ("noise", "sep_conv_3x3")


def test_a_proximal_step_of_dso_by_hand():
    module = sys.modules[registry.load("op_scorers", "dso").__module__]
    scale, slope, speed = torch.tensor([1.0, 0.5, 0.01]), torch.tensor([2.0, -1.0, 0.0]), torch.tensor([0.0, 0.1, 0.0])
    values, moved = module.apg_nag(scale, slope, speed, eta=0.1, gamma=0.5, mu=0.9)
    # z: 1 - 0.2 - 0.05, 0.5 + 0.1 - 0.05, |0.01| <= 0.05; v: z - scale + 0.9 speed; scale: max(0, z + 0.9 v)
    torch.testing.assert_close(moved, torch.tensor([-0.25, 0.05 + 0.09, -0.01]))
    torch.testing.assert_close(values, torch.tensor([0.75 - 0.225, 0.55 + 0.9 * 0.14, 0.0]))


def test_dso_without_slopes_shrinks_to_the_closed_form():
    """On a scale without influence and without momentum, every step takes eta gamma off."""
    torch.manual_seed(0)
    net = Edges([[nn.Linear(3, 3), nn.Identity(), Zero()]], nn.Linear(3, 2)).eval()
    structure = structure_of(net, torch.randn(4, 3), ("linear", "skip_connect", "silence"))
    data = [(torch.randn(6, 3), torch.arange(6) % 2)]
    scores = op_scorer("dso(gamma=0.5, epochs=10, momentum=0.0)").score(task_of(structure, data))["edge0"]
    mean = sum(1 - 0.05 * step for step in range(1, 11)) / 10
    assert float(scores[2]) == pytest.approx(0.5 + 1e-3 * mean, abs=1e-5)


class Zero(nn.Module):
    """Zeros for now: with a parameter, so that it may connect something as far as anybody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


class Noise(nn.Module):
    """Noise, whatever the input."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x)


def useful_or_not() -> tuple[object, list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """One edge: the input, noise, nothing. Only the input says what the class is."""
    torch.manual_seed(0)
    net = Edges([[Noise(), nn.Identity(), Zero()]], nn.Linear(6, 2)).eval()
    structure = structure_of(net, torch.randn(4, 6), ("noise", "skip_connect", "silence"))
    generator = torch.Generator().manual_seed(3)
    found = []
    for _ in range(16):
        x = torch.randn(32, 6, generator=generator)
        found.append((x, (x[:, 0] > 0).long()))
    return structure, found[:8], found[8:]


@pytest.mark.parametrize("spec", ["asap", "dso", "perturbation"])
def test_the_only_useful_candidate_is_kept(spec):
    structure, train, validation = useful_or_not()
    task = task_of(structure, validation, train)
    if spec == "perturbation":
        fit(task.net, train, 10)
    scores = op_scorer(spec).score(task)["edge0"]
    assert int(scores.argmax()) == 1
    assert scores[1] > 2 * scores[0]


def test_asap_closes_the_choice_and_leaves_the_net_alone():
    structure, train, validation = useful_or_not()
    before = {name: value.clone() for name, value in structure.net.state_dict().items()}
    task = task_of(structure, validation, train)
    scores = op_scorer("asap").score(task)["edge0"]
    assert sorted(scores > 1) == [False, False, True]
    assert float(scores.max()) == pytest.approx(2, abs=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in structure.net.state_dict().items())
    assert torch.equal(task.net.alphas[0], structure.net.alphas[0])
    assert not torch.equal(task.net.head.weight, structure.net.head.weight)


@pytest.mark.parametrize("spec", ["asap(epochs=2, warmup=2)", "asap(end=2.0)", "dso(momentum=1.0)", "dso(gamma=-1)"])
def test_schedules_that_make_no_sense_are_refused(spec):
    with pytest.raises(InputError, match="got"):
        op_scorer(spec)


def fit(net: nn.Module, data: list[tuple[Tensor, Tensor]], epochs: int, lr: float = 0.05) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr, momentum=0.9)
    net.train()
    for _ in range(epochs):
        for x, y in data:
            optimizer.zero_grad()
            functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    net.eval()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_is_not_kept(seed):
    """The space S4 of Zela et al. 2020 (arXiv:1909.09656): a scorer that keeps noise on real digits is unfit."""
    from nasprune.data.digits import digits

    torch.manual_seed(seed)
    ops = [[OPERATIONS[name](6, 1, False) for name in PAIR] for _ in range(4)]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 10))
    net = Edges(ops, head, nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)))
    part = digits(seed).train
    items = [part[i] for i in range(768)]
    x, y = torch.stack([item[0] for item in items]), torch.tensor([int(item[1]) for item in items])
    batches = list(zip(x.split(64), y.split(64), strict=True))
    fit(net, batches[:8], 6)
    structure = structure_of(net.eval(), x[:4], PAIR)
    scores = op_scorer("perturbation").score(task_of(structure, batches[8:]))
    assert all(values[1] > values[0] for values in scores.values()), scores
