"""Weights that are normalised over their inputs while a network runs are named where inputs go."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from nasprune import search, trace
from nasprune.cut.normalised import over_fewer_inputs
from nasprune.cut.trial_plans import half_plan


class Standardised(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        centred = self.weight - self.weight.mean(1, keepdim=True)
        return F.linear(x, centred / centred.std(1, keepdim=True), self.bias)


class ByNorm(nn.Linear):
    """As timm does it."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(self.weight.reshape(1, len(self.weight), -1), None, None, training=True)
        return F.linear(x, weight.reshape_as(self.weight), self.bias)


class Cosine(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x), F.normalize(self.weight))


class Scaled(nn.Linear):
    """One number for each output: nothing is summed over inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.bias[:, None].exp())


def net(kind: type[nn.Linear]) -> nn.Sequential:
    return nn.Sequential(kind(6, 8), nn.ReLU(), kind(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def named(model: nn.Module) -> tuple[str, ...]:
    graph = trace(model, torch.randn(1, 6))
    assert len(graph.free_groups) == 2
    return over_fewer_inputs(graph, half_plan(graph, [group.name for group in graph.free_groups]))


@pytest.mark.parametrize("kind", [Standardised, ByNorm, Cosine])
def test_modules_that_normalise_over_inputs_that_go(kind):
    assert named(net(kind)) == ("2",)


@pytest.mark.parametrize("kind", [nn.Linear, Scaled, lambda *sizes: parametrizations.weight_norm(nn.Linear(*sizes))])
def test_others_are_not_named(kind):
    assert named(net(kind)) == ()


def test_the_report_says_so():
    notes = " ".join(search(net(Standardised), torch.randn(1, 6), "60%", trials=1).report.notes)
    assert "`2` normalises its weights as the network runs" in notes
    assert "Fine-tune" in notes


class OfTheRoot(nn.Module):
    """Its own code normalises a weight, not that of a layer in it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.weight = nn.Linear(6, 8), nn.Parameter(torch.randn(4, 8))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.first(x).relu(), F.normalize(self.weight))


def test_a_network_that_does_so_itself_is_named_in_words():
    notes = " ".join(search(OfTheRoot(), torch.randn(1, 6), "60%", trials=1).report.notes)
    assert "The network itself normalises its weights" in notes
