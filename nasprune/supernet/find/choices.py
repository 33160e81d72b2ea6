"""Decisions over operations: mixed operations that share their fate are one choice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nasprune.errors import InputError
from nasprune.space.choices import OpChoice
from nasprune.supernet.find.mixed import MixedOp
from nasprune.supernet.find.siblings import LISTS


@dataclass(frozen=True)
class Place:
    """A mixed operation as `group` and `weights` functions of the user see it.

    net: the supernet. path: of what holds the candidates, often a list. cell: the module that holds this and other
    mixed operations; index: which of those it is. op_names: of the candidates.
    """

    net: nn.Module
    path: str
    cell: nn.Module
    cell_path: str
    index: int
    op_names: tuple[str, ...]

    @property
    def module(self) -> nn.Module:
        """The one that mixes: what holds the candidates, or the nearest module around it that is no mere list."""
        path = self.path
        while path and isinstance(self.net.get_submodule(path), LISTS):
            path = path.rpartition(".")[0]
        return self.net.get_submodule(path)


Kept = Mapping[str, tuple[int, ...]]
"""Choice -> ascending numbers of the candidates that stay."""

Group = Callable[[Place], str]
Weights = Callable[[Place], Tensor]
EdgeWeights = Callable[[Place], Tensor | float]


def view(net: nn.Module, mixed: MixedOp) -> Place:
    """One mixed operation of `net` as the user's functions see it."""
    return Place(net, mixed.path, net.get_submodule(mixed.cell), mixed.cell, mixed.index, mixed.names)


def edge_weight(net: nn.Module, mixed: MixedOp, given: EdgeWeights) -> float:
    """What the user's function says of one mixed operation of `net`.

    Raises:
        InputError: the function fails, or gives something else than one positive number.
    """
    try:
        value = float(torch.as_tensor(given(view(net, mixed))).detach())
    except Exception as error:
        raise InputError(f"`edge_weights` failed on {mixed.path!r}: {type(error).__name__}: {error}") from error
    if not 0 < value < math.inf:
        raise InputError(f"`edge_weights` must give a positive number, after any softmax, for {mixed.path!r}: {value}")
    return value


def tied(net: nn.Module, mixed: Sequence[MixedOp], group: Group | None) -> tuple[OpChoice, ...]:
    """The choices, in order of their first mixed operation.

    What shares a decision has the same name by `group`, else the same label given by the framework; without either
    every mixed operation decides alone.

    Raises:
        InputError: `group` fails or gives no text, or mixed operations with different candidates share a decision.
    """
    members: dict[str, list[int]] = {}
    for number, one in enumerate(mixed):
        members.setdefault(_name(net, one, group), []).append(number)
    choices = []
    for name, places in members.items():
        first = mixed[places[0]]
        for other in (mixed[number] for number in places[1:]):
            if other.names != first.names:
                raise InputError(
                    f"choice {name!r} ties {first.path!r} with {list(first.names)} and {other.path!r} with "
                    f"{list(other.names)}; give `group` a different name for each set of candidates"
                )
        zeros = set(first.zeros).intersection(*(mixed[number].zeros for number in places))
        choices.append(OpChoice(name, first.names, tuple(places), tuple(sorted(zeros))))
    return tuple(choices)


def _name(net: nn.Module, mixed: MixedOp, group: Group | None) -> str:
    if group is None:
        return mixed.label or mixed.path
    try:
        name = group(view(net, mixed))
    except Exception as error:
        raise InputError(f"`group` failed on {mixed.path!r}: {type(error).__name__}: {error}") from error
    if not isinstance(name, str) or not name:
        raise InputError(f"`group` must give a name for {mixed.path!r}, got {name!r}")
    return name


def everything(choices: Sequence[OpChoice]) -> dict[str, tuple[int, ...]]:
    """All candidates of all choices."""
    return {choice.name: tuple(range(len(choice.ops))) for choice in choices}


def check_kept(choices: Sequence[OpChoice], kept: Kept) -> None:
    """Raises InputError unless the choices in `kept` keep candidates, one that connects if there is any."""
    for choice in choices:
        if choice.name not in kept:
            continue
        numbers = kept[choice.name]
        if list(numbers) != sorted(set(numbers)) or not set(numbers) <= set(range(len(choice.ops))):
            raise InputError(
                f"choice {choice.name!r}: expected ascending numbers below {len(choice.ops)}, got {numbers}"
            )
        if not set(numbers) & set(choice.connecting or range(len(choice.ops))):
            raise InputError(
                f"choice {choice.name!r} would connect nothing: {[choice.ops[i] for i in numbers]}; keep another one"
            )
