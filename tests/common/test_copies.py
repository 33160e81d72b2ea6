"""A copy is what `copy.deepcopy` gives, to the last attribute, whatever the classes say about copying."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nasprune.common.copies import deep_copy
from nasprune.testing import SampleNet


class Held(nn.Module):
    """Aliases, containers, modules and tensors in places that PyTorch does not know, hooks, a part that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding_mode="reflect", padding=1), nn.BatchNorm2d(4)
        self.again, self.tied = self.a, nn.Conv2d(3, 4, 3)
        self.tied.weight = self.a.weight
        self.register_buffer("apart", torch.ones(2), persistent=False)
        self.hidden = [nn.Linear(2, 2), {"itself": self, "b": self.b}]
        self.mixed, self.seen = (1, self.b, None), {"sizes": {(1, 2): [3]}, "empty": {}}
        self.the_same, self.names, self.odd = self.seen, {"a"}, {(1, "b"), frozenset()}
        self.ordered = OrderedDict(b=self.b)
        self.noted = OrderedDict()
        self.noted.told = 3
        self.table, self.view = torch.arange(4.0), self.b.weight.detach()
        self.a.register_forward_hook(keep)


def keep(module: nn.Module, args: Any, output: Tensor) -> None:
    """A hook."""


class Counted(nn.Linear):
    """Its class says how it is copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Counted:
        made = memo[id(self)] = Counted(2, 3)
        made.copied = True
        return made


class Reduced(nn.Linear):
    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "reduced": True}


class Restored(nn.Linear):
    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "restored": True})


class Forwards(nn.Module):
    """What it lacks is looked for in what it wraps."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Counted(2, 3)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


class Slotted(nn.Linear):
    __slots__ = ("beside",)


def slotted() -> nn.Module:
    made = Slotted(2, 3)
    made.beside = [1]
    return made


def on_the_object() -> nn.Module:
    made = nn.Linear(2, 3)
    made.__dict__["__deepcopy__"] = lambda memo: Counted(2, 3)
    return made


def told(value: Any, seen: dict[int, int]) -> Any:
    """All that can be reached, with what is one and the same numbered alike."""
    if type(value) in (type(None), bool, int, float, str):
        return value
    if id(value) in seen:
        return "seen", seen[id(value)]
    seen[id(value)] = len(seen)
    kind, held = type(value), [told(one, seen) for one in getattr(value, "__dict__", {}).items()]
    if isinstance(value, Tensor):
        return kind, value.tolist(), value.requires_grad
    if callable(value) and not isinstance(value, nn.Module):
        return value
    if isinstance(value, dict):
        return kind, held, [told(one, seen) for one in value.items()]
    if isinstance(value, list | tuple):
        return kind, [told(one, seen) for one in value]
    if isinstance(value, set | frozenset):
        return kind, sorted(map(repr, value))
    return kind, held, getattr(value, "beside", None)


MAKERS = [Held, SampleNet, lambda: Counted(2, 3), lambda: Reduced(2, 3), lambda: Restored(2, 3), Forwards, slotted]
MAKERS += [
    on_the_object,
    lambda: nn.LSTM(2, 3),
    lambda: nn.MultiheadAttention(4, 2),
    lambda: nn.ParameterList([nn.Parameter(torch.ones(2))]),
]
MAKERS += [lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))]


@pytest.mark.parametrize("make", MAKERS)
def test_copies_are_those_of_deepcopy(make: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(make(), nn.ReLU())
    net.twice = net[0]
    torch.manual_seed(1)
    wanted, memo = told(copy.deepcopy(net), {}), {}
    torch.manual_seed(1)
    made = deep_copy(net, memo)
    assert told(made, {}) == wanted
    assert made[0] is memo[id(net[0])] or "__deepcopy__" in vars(net[0])
    assert made[0] is made.twice is not net[0]


def test_what_stands_for_a_tensor_is_taken() -> None:
    net, other = nn.Linear(2, 3), nn.Parameter(torch.zeros(1, 2))
    made = deep_copy(net, {id(net.weight): other})
    assert made.weight is other
    assert made.bias is not net.bias
