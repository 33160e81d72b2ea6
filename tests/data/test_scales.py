"""Labels say whether outputs are classes or numbers; numbers are compared on the scales that they have."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import nasprune
from nasprune.common.losses import divergence, divergences
from nasprune.data.items import ArrayDataset
from nasprune.data.scales import variances

INPUTS = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))


class Two(nn.Module):
    """Two numbers, of which `big` makes nearly all and `small` a thousandth."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.big, self.small = nn.Linear(16, 32), nn.Linear(16, 32)
        self.big2, self.small2 = nn.Linear(32, 2), nn.Linear(32, 2)
        self.register_buffer("offset", torch.tensor([offset, 0.0]))

    def forward(self, inputs: Tensor) -> Tensor:
        big = self.big2(self.big(inputs).relu())
        return 50 * (big + 1e-3 * self.small2(self.small(inputs).relu())) + self.offset


@pytest.fixture(scope="module", params=[0.0, 1000.0])
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return Two(request.param).eval()


@torch.no_grad()
def numbers_of(net: nn.Module) -> Tensor:
    return net(INPUTS)


def error(one: nn.Module, other: nn.Module) -> float:
    return float((numbers_of(one) - numbers_of(other)).square().mean().sqrt())


def test_labels_say_what_outputs_are(net):
    found = variances(net, ArrayDataset(INPUTS, numbers_of(net)))
    assert torch.allclose(found, numbers_of(net).double().var(0), rtol=0.2)
    for labels in (torch.zeros(400, dtype=torch.long), torch.eye(2)[torch.arange(400) % 2], torch.zeros(400, 3)):
        assert variances(net, ArrayDataset(INPUTS, labels)) is None


def test_several_answers_are_numbers_whatever_a_batch_of_them_looks_like(net):
    for last in (torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])):
        labels = torch.tensor([1.0, 1.0]).repeat(65, 1)
        labels[64] = last
        assert variances(net, ArrayDataset(INPUTS[:65], labels)) is not None
        assert variances(net, ArrayDataset(INPUTS[:65], labels.flip(0))) is not None


def test_an_output_that_never_changes_has_its_size_for_a_scale():
    net = nn.Linear(16, 2)
    nn.init.zeros_(net.weight)
    with torch.no_grad():
        net.bias.copy_(torch.tensor([3.0, 0.0]))
    assert variances(net, ArrayDataset(INPUTS, torch.rand(400, 2))).tolist() == [9.0, 1.0]


def test_numbers_are_compared_by_their_squared_change():
    target, outputs, variance = torch.randn(5, 3, 4), torch.randn(5, 3, 4), torch.tensor([1.0, 4.0, 0.25])
    changes = (outputs - target).square() / variance[:, None]
    assert torch.allclose(divergence(target, outputs, variance=variance), changes.sum() / 2)
    assert torch.allclose(divergence(target, outputs, 2.0, variance), changes.sum() / 8)
    assert torch.allclose(divergences(target, outputs, variance), changes.sum((1, 2)) / 2)


def test_a_search_cuts_what_numbers_do_not_need(net):
    data = INPUTS, numbers_of(net)
    result = nasprune.search(net, INPUTS[:1], "50%", data=data, evaluator="kl", reconstruct="none")
    widths = {group.name: group.kept for group in result.report.groups}
    assert widths["small"] <= 8 < widths["big"]
    assert result.report.score < -1e-6
    sparse = nasprune.search(net, INPUTS[:1], "40%NNZ", data=data, evaluator="kl", sparsifier="obd")
    kept = {layer: mask.float().mean() for layer, mask in sparse.plan.masks.items()}
    assert kept["small.weight"] < 0.5 * kept.get("big.weight", 1.0)


def test_polish_and_a_teacher_bring_numbers_back(net):
    far = Two()
    far.load_state_dict(net.state_dict())
    with torch.no_grad():
        far.big2.bias += 2.0
        far.big.weight += 0.05
    data = INPUTS, numbers_of(net)
    done = nasprune.polish(far, net, data, steps=60, lr=1e-2)
    assert done.after < 0.5 * done.before
    assert error(done.model, net) < 0.7 * error(far, net)


class Huber:
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.smooth_l1_loss(outputs, targets)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (1 - (outputs - targets).abs().mean(1) / 1e4).clamp(0, 1)

    def guess(self, outputs: Tensor) -> float:
        return 1e6


def test_a_teacher_is_followed_in_numbers_whatever_the_loss_is(net):
    far = Two()
    far.load_state_dict(net.state_dict())
    with torch.no_grad():
        far.big2.bias += 0.2
    tuned = nasprune.finetune(
        far, (INPUTS, numbers_of(net)), epochs=4, lr=1e-2, teacher=net, task=Huber(), soft_share=1.0, average=0.0
    )
    assert error(tuned, net) < 0.7 * error(far, net)


class One(nn.Module):
    """A number for each image, without an axis of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.first(inputs).relu()).squeeze(-1)


def test_a_number_without_an_axis_is_searched_polished_and_followed():
    torch.manual_seed(0)
    net = One().eval()
    data = INPUTS, numbers_of(net)
    result = nasprune.search(net, INPUTS[:1], "50%", data=data, evaluator="kl")
    assert result.report.score < 0
    assert result.report.measured["divergence cut"] > 0
    polished = nasprune.polish(result, net, data, steps=40)
    assert polished.after <= polished.before
    tuned = nasprune.finetune(result, data, epochs=2, teacher=net)
    assert tuned(INPUTS).shape == (400,)
    assert error(tuned, net) < 2 * error(result.model, net)
