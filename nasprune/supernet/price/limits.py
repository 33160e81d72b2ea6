"""Budgets of supernets: one limit, and the counter it is meant in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from nasprune.cost.units import scaled, short
from nasprune.errors import BudgetError
from nasprune.supernet.price.counting import Counter, Counts, checked_counter

EXAMPLES = "600MMACs, 600MFLOPs (as fvcore counts), 5MParams, 8ms, 60%"
UNITS: dict[str, Counter] = {"FLOP": "fvcore", "MAC": "macs", "PARAM": "params", "LATENCY": "latency"}
TYPED = {"fvcore": "FLOPs", "macs": "MACs", "params": "Params"}
NAMES = {"fvcore": "FLOPs (fvcore)", "macs": "MACs (convolutions and products)", "params": "params"}
_AMOUNT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][0-9]+)?)\s*([KMGT]?)(?:(FLOP|MAC|PARAM)S?)?\s*", re.IGNORECASE)
_SHARE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*%\s*(?:of\s+)?(?:(FLOP|MAC|PARAM|LATENCY)S?)?\s*", re.IGNORECASE)
_TIME = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*(ms|us|µs|s)\s*", re.IGNORECASE)
NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "µs": 10**3}


@dataclass(frozen=True)
class Limit:
    """An upper limit, inclusive. counter: the name of a field of `Counts`, or "latency", in nanoseconds."""

    number: int
    counter: Counter

    def __str__(self) -> str:
        return amount(self.number, self.counter)

    @property
    def typed(self) -> str:
        """As `parse_limit` reads it."""
        if self.counter == "latency":
            return f"{self.number // 10**6}.{self.number % 10**6:06}ms"
        return f"{self.number}{TYPED[self.counter]}"


def amount(number: float, counter: str) -> str:
    """A cost in words."""
    return f"{number / 1e6:.4g} ms" if counter == "latency" else short(number, NAMES[counter])


def counter_of(text: str, counter: Counter = "fvcore") -> Counter:
    """What a budget is in: its unit says so, else `counter` does.

    Raises:
        InputError: there is no such counter.
    """
    if counter != "latency":
        checked_counter(counter, more=("latency",))
    if _TIME.fullmatch(text):
        return "latency"
    found = _AMOUNT.fullmatch(text)
    unit = found[3] if found else match[2] if (match := _SHARE.fullmatch(text)) else None
    return UNITS[unit.upper()] if unit else counter


def parse_limit(text: str, whole: Counts, counter: Counter = "fvcore", time: int | None = None) -> Limit:
    """Reads "600MMACs", "600MFLOPs", "5MParams", "8ms", "60%" or "60% latency".

    Two published "600 M" differ by their counter.

    Args:
        whole: what a share is of. time: the same in nanoseconds, where it is known.
        counter: what is meant where the text names no unit.

    Raises:
        BudgetError: it does not parse, or is not above zero. InputError: there is no such counter.
    """
    counter = counter_of(text, counter)
    if match := _TIME.fullmatch(text):
        number = int(Fraction(match[1]) * NANOSECONDS[match[2].lower()])
    elif match := _AMOUNT.fullmatch(text):
        if counter == "latency":
            raise BudgetError(f"a budget of time needs a unit, such as 8ms, or a share, got {text!r}")
        number = scaled(match[1], match[2])
    elif match := _SHARE.fullmatch(text):
        share = Fraction(match[1]) / 100
        if not 0 < share <= 1:
            raise BudgetError(f"a share must be in (0%, 100%], got {text!r}")
        if counter == "latency" and time is None:
            raise BudgetError(f"the time that {text!r} is a share of was not measured; give milliseconds, such as 8ms")
        number = int(share * (time or 0 if counter == "latency" else whole[counter]))
    else:
        raise BudgetError(f"the budget {text!r} does not parse; write for example {EXAMPLES}")
    if number <= 0:
        raise BudgetError(f"a budget must be above zero, got {text!r}; examples: {EXAMPLES}")
    return Limit(number, counter)
