"""The price list of a supernet: what each candidate costs, and what the rest does."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.space.choices import OpChoice
from nasprune.supernet.find.choices import Kept
from nasprune.supernet.find.mixed import MixedOp
from nasprune.supernet.price.counting import Counts, count_module
from nasprune.supernet.price.gates import gated


@dataclass(frozen=True)
class PriceList:
    """Additive costs for one item.

    base: the net without any candidate. places: for each mixed operation the counts of its candidates, in order.
    """

    base: Counts
    places: tuple[tuple[Counts, ...], ...]

    def of_choice(self, choice: OpChoice) -> tuple[Counts, ...]:
        """For each candidate its counts over all tied mixed operations."""
        sums = [Counts() for _ in choice.ops]
        for number in choice.places:
            sums = [total + own for total, own in zip(sums, self.places[number], strict=True)]
        return tuple(sums)

    def of_kept(self, choices: Sequence[OpChoice], kept: Kept, severed: Sequence[int] = ()) -> Counts:
        """The net with the `kept` candidates only, without those of mixed operations that are `severed`."""
        total = self.base
        for choice in choices:
            for number in choice.places:
                if number not in severed:
                    for k in kept[choice.name]:
                        total = total + self.places[number][k]
        return total


def price(
    net: nn.Module, mixed: Sequence[MixedOp], choices: Sequence[OpChoice], input_shape: tuple[int, ...]
) -> PriceList:
    """Counts every candidate by itself and the net with all of them; what is left is the base.

    Args:
        input_shape: of the net's input, batch first.

    Raises:
        InputError: the net or a candidate cannot be counted.
    """
    known: dict[Hashable, Counts] = {}

    def count(path: str, shape: tuple[int, ...]) -> Counts:
        module = net.get_submodule(path)
        key = _likeness(module), shape
        if key not in known:
            known[key] = count_module(module, shape)
        return known[key]

    places = tuple(tuple(count(path, place.input_shape) for path in place.ops) for place in mixed)
    with gated(net, mixed, choices, {}):
        base = count_module(net, input_shape)
    for counts in places:
        for own in counts:
            base = base - own
    return PriceList(base, places)


def _likeness(module: nn.Module) -> Hashable:
    """Equal for modules that cost the same: their classes, shapes and settings agree throughout.

    Settings that are not understood count as different unless they are the same object.
    """
    order: dict[int, int] = {}
    found: list[Hashable] = []
    for path, each in module.named_modules(remove_duplicate=False):
        own = {name: value for name, value in vars(each).items() if name != "_modules"}
        found.append((path, type(each), _setting(own, order)))
    return tuple(found)


def _setting(value: Any, order: dict[int, int]) -> Hashable:
    """What an attribute says of the cost. order: numbers the tensors, so that shared ones differ from equal ones."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        return type(value), repr(value)
    if isinstance(value, Tensor):
        content = value.detach().cpu().numpy().tobytes() if value.dtype in (torch.bool, torch.int64) else b""
        return "tensor", order.setdefault(id(value), len(order)), tuple(value.shape), content
    if isinstance(value, dict):
        return "dict", tuple((repr(key), _setting(item, order)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return "list", tuple(_setting(item, order) for item in value)
    if isinstance(value, set | frozenset) and not value:
        return "set", ()
    return "object", id(value)
