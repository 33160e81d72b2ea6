"""What models give: containers of any kind are looked into, and what hides its tensors is refused in one sentence."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import nasprune
from nasprune.common.outputs import tensors_of
from nasprune.errors import InputError

X = torch.randn(1, 6)


@dataclass
class Found:
    logits: Tensor
    more: object = None


class Pair(NamedTuple):
    logits: Tensor
    more: object


class Output(OrderedDict[str, object]):
    """As the outputs of Hugging Face are."""


class Kind(Enum):
    ONE = 1


class Own:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Gives(nn.Module):
    def __init__(self, make) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)
        self.make = make

    def forward(self, x: Tensor) -> object:
        return self.make(self.b(self.a(x).relu()))


SEEN = {
    "dataclass": Found,
    "dataclass in a dict": lambda x: {"found": Found(x, [x + 1])},
    "named tuple": lambda x: Pair(x, None),
    "own kind of dict": lambda x: Output(logits=x),
    "namespace": lambda x: SimpleNamespace(logits=x),
    "with an enumeration": lambda x: (Kind.ONE, x, x.shape),
}


@pytest.mark.parametrize("make", SEEN.values(), ids=SEEN)
def test_a_net_that_gives_tensors_in_a_container_is_cut_and_proved(make):
    model = Gives(make)
    result = nasprune.search(model, X, "60%", trials=1)
    assert result.report.proof.ok
    assert result.plan.keep
    assert type(result.model(X)) is type(model(X))
    assert not model._forward_hooks


def test_tensors_come_in_order():
    a, b, c = torch.tensor(1), torch.tensor(2), torch.tensor(3)
    assert tensors_of([Found(a, {"x": (b, 3, "y")}), Output(z=c)]) == [a, b, c]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Own, "gives a Own, in which nasprune does not see the tensors; let `forward` return tensors"),
        (lambda x: (x, Own(x)), "gives, among others, a Own, in which"),
        (lambda x: (part for part in [x]), "gives a generator, in which"),
        (lambda x: {x}, "gives a set, in which"),
        (lambda x: None, "gives no tensor on the example inputs, only None"),
        (lambda x: 3, "gives no tensor on the example inputs, only 3"),
    ],
)
def test_what_hides_tensors_or_has_none(make, message):
    with pytest.raises(InputError, match=message):
        nasprune.trace(Gives(make), X)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (X[:0], r"holds no item, got tensors of shape \[0, 6\]"),
        (X * float("nan"), "`example_inputs` holds NaN"),
        (X * float("inf"), "`example_inputs` holds infinite values, of which the model makes NaN"),
    ],
)
def test_example_inputs_that_say_nothing(inputs, message):
    with pytest.raises(InputError, match=message):
        nasprune.search(Gives(lambda x: x), inputs, "60%", trials=1)


def test_a_mask_of_infinite_values_is_taken():
    class Masked(Gives):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return torch.softmax(super().forward(x) + mask, -1)

    mask = torch.tensor([[0.0, -torch.inf, 0.0, 0.0]])
    assert nasprune.trace(Masked(lambda x: x), (X, mask)).free_groups
