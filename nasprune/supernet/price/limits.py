"""Budgets of supernets: one limit, and the counter it is meant in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from nasprune.cost.units import scaled, short
from nasprune.errors import BudgetError
from nasprune.supernet.price.counting import Counter, Counts, checked_counter

EXAMPLES = "600MMACs, 600MFLOPs (as fvcore counts), 5MParams, 60%"
UNITS: dict[str, Counter] = {"FLOP": "fvcore", "MAC": "macs", "PARAM": "params"}
NAMES = {"fvcore": "FLOPs (fvcore)", "macs": "MACs (convolutions and products)", "params": "params"}
_AMOUNT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][0-9]+)?)\s*([KMGT]?)(?:(FLOP|MAC|PARAM)S?)?\s*", re.IGNORECASE)
_SHARE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*%\s*(?:of\s+)?(?:(FLOP|MAC|PARAM)S?)?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Limit:
    """An upper limit, inclusive. counter: the name of a field of `Counts`."""

    number: int
    counter: Counter

    def __str__(self) -> str:
        return short(self.number, NAMES[self.counter])


def parse_limit(text: str, whole: Counts, counter: Counter = "fvcore") -> Limit:
    """Reads "600MMACs", "600MFLOPs", "5MParams" or "60%"; two published "600 M" differ by their counter.

    Args:
        whole: what a share is of.
        counter: what is meant where the text names no unit.

    Raises:
        BudgetError: it does not parse, or is not above zero. InputError: there is no such counter.
    """
    checked_counter(counter)
    if match := _AMOUNT.fullmatch(text):
        counter = UNITS[match[3].upper()] if match[3] else counter
        number = scaled(match[1], match[2])
    elif match := _SHARE.fullmatch(text):
        counter = UNITS[match[2].upper()] if match[2] else counter
        share = Fraction(match[1]) / 100
        if not 0 < share <= 1:
            raise BudgetError(f"a share must be in (0%, 100%], got {text!r}")
        number = int(share * getattr(whole, counter))
    else:
        raise BudgetError(f"the budget {text!r} does not parse; write for example {EXAMPLES}")
    if number <= 0:
        raise BudgetError(f"a budget must be above zero, got {text!r}; examples: {EXAMPLES}")
    return Limit(number, counter)
