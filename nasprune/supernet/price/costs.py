"""The price list of a supernet: what each candidate costs, and what the rest does."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from torch import nn

from nasprune.space.choices import OpChoice
from nasprune.supernet.find.choices import Kept
from nasprune.supernet.find.mixed import MixedOp
from nasprune.supernet.price.counting import Counts, count_module
from nasprune.supernet.price.gates import gated
from nasprune.supernet.price.likeness import count_once


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
        return count_once(net.get_submodule(path), shape, known)

    places = tuple(tuple(count(path, place.input_shape) for path in place.ops) for place in mixed)
    with gated(net, mixed, choices, {}):
        base = count_module(net, input_shape)
    for counts in places:
        for own in counts:
            base = base - own
    return PriceList(base, places)
