"""What strategies may hang on a network, and on which parts of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import nasprune
from tests.strategies.loops import BOTH


class Attending(nn.Module):
    """Attention, two layers of one weight, and a layer whose weight code multiplies with."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.first, self.second, self.called, self.head = (nn.Linear(8, 8) for _ in range(4))
        self.second.weight = self.first.weight

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.second(self.first(x).relu())
        return self.head(functional.linear(x, self.called.weight).relu().mean(1))


def test_weights_that_are_read_past_their_layer_stay_whole() -> None:
    torch.manual_seed(0)
    model, tokens = Attending(), torch.randn(8, 3, 8)
    pruner = nasprune.pruner(model, tokens[:1], "90%NNZ", steps=8, strategy="l0", lr=0.1)
    assert [weight.name for weight in pruner.task.weights] == ["first.weight", "head.weight"]
    for _ in range(8):
        functional.cross_entropy(model(tokens), torch.arange(8)).backward()
        pruner.step()
    found = pruner.finish()
    assert set(found.plan.masks) <= {"first.weight", "head.weight"}
    assert torch.equal(found.model.attention.out_proj.weight, model.attention.out_proj.weight)
    (note,) = found.notes
    assert "attention.out_proj.weight, called.weight" in note
    pruner.task.weights[0].through(lambda weight, training: weight * 0)
    assert torch.equal(model.second(tokens), model.second.bias.expand_as(tokens))
    pruner.task.release()
    with pytest.raises(nasprune.BudgetError, match=r"biases and norms, and the weights attention\.out_proj\.weight"):
        nasprune.pruner(model, tokens[:1], "70%NNZ", steps=8, strategy="l0")
    free = nasprune.pruner(model, tokens[:1], "70%NNZ", steps=8, strategy="gradual").task
    assert {"attention.out_proj.weight", "called.weight"} <= {weight.name for weight in free.weights}
    called = next(weight for weight in free.weights if weight.name == "called.weight")
    with pytest.raises(nasprune.PluginError, match=r"'called\.weight', but code reads .* `hooks = True`"):
        called.through(lambda weight, training: weight)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8) / 3)

    def forward(self, x):
        return functional.linear(x, self.weight)


class Read(nn.Module):
    """Groups of eight channels, each read by something else."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.own, self.bare = nn.LSTM(8, 8, batch_first=True), Own(), nn.Parameter(torch.randn(8, 8))
        self.a, self.b, self.c, self.d, self.e, self.f = (nn.Linear(8, 8) for _ in range(6))

    def forward(self, x):
        x = self.own(self.lstm(self.a(x))[0].relu())
        x = functional.linear(self.b(x).relu() @ self.bare, self.c.weight, self.c.bias)
        x = x * self.d(x).relu().sum(2, keepdim=True)
        return self.f(self.e(x).relu()).mean(1)


@pytest.mark.parametrize("name", [*BOTH, "sbp", "bayes"])
def test_gates_stand_where_layers_alone_read(name: str) -> None:
    torch.manual_seed(0)
    model, tokens = Read(), torch.randn(8, 8, 8)
    pruner = nasprune.pruner(model, tokens[:1], "95%", steps=4, strategy=name, lr=0.1)
    assert [group.name for group in pruner.task.groups] == ["own", "c", "e"]
    for _ in range(4):
        functional.cross_entropy(model(tokens), torch.arange(8)).backward()
        pruner.step()
    found = pruner.finish()
    assert found.plan.keep.keys() <= {"own", "c", "e"}
    said = " ".join(found.notes)
    for group, reader in (("a", "lstm.weight_ih_l0"), ("b", "bare"), ("bare", "c.weight"), ("d", "`sum` at")):
        assert f"Group {group} stayed whole: {reader}" in said
    whole = nasprune.pruner(model, tokens[:1], "95%", steps=4, strategy="soft").task
    with pytest.raises(nasprune.PluginError, match=r"gate on group 'a', but lstm\.weight_ih_l0 .* `hooks = True`"):
        whole.gate(whole.graph.group("a"), lambda items, training: torch.ones(1, 8))


class Named(nn.Module):
    """Layers that are called by name, and one with a further argument."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up = nn.Conv2d(1, 8, 3, 2, 1), nn.ConvTranspose2d(8, 8, 3, 2, 1)
        self.last, self.norm, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, image):
        x = self.up(self.first(input=image).relu(), output_size=image.shape[2:])
        return self.head(input=self.norm(input=self.last(input=x.relu())).mean((2, 3)))


@pytest.mark.parametrize(
    ("name", "budget"),
    [*((name, "60%") for name in ("sbp", "bayes", "resrep")), *((name, "60%NNZ") for name in ("l0", "vd", "olmp"))],
)
def test_layers_that_are_called_by_name(name: str, budget: str) -> None:
    torch.manual_seed(0)
    model, images = Named(), torch.randn(8, 1, 6, 6)
    pruner = nasprune.pruner(model, images[:1], budget, steps=4, strategy=name, lr=0.05)
    for _ in range(4):
        functional.cross_entropy(model(image=images), torch.arange(8) % 4).backward()
        pruner.step()
    assert pruner.finish().proof.ok
    assert list(dict(model.up.named_parameters())) == ["weight", "bias"]
