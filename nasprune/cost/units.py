"""Numbers with units: "2GFLOPs", "5MParams", "8ms" as exact numbers, and numbers as short text.

1 FLOP is one multiply-add, as fvcore counts it; "MACs" is accepted as a synonym.
"""

from __future__ import annotations

from fractions import Fraction

from nasprune.errors import BudgetError

MOST = 10**18
SCALES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def scaled(text: str, prefix: str) -> int:
    """The integer that `text` times the SI `prefix` stands for, rounded down.

    >>> scaled("1.5", "G")
    1500000000
    """
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise BudgetError(f"expected a number such as 2 or 1.5, got {text!r}") from None
    if value > MOST:
        raise BudgetError(f"expected a number that a network can reach, got {text!r}; no network costs as much")
    return int(value * SCALES[prefix.upper()])


def short(number: float, unit: str = "") -> str:
    """`number` with four significant digits and an SI prefix.

    >>> short(1996488704, "FLOPs")
    '1.996 GFLOPs'
    """
    prefix, scale = max(
        ((name, scale) for name, scale in SCALES.items() if abs(number) >= scale),
        key=lambda pair: pair[1],
        default=("", 1),
    )
    value = number / scale
    digits = f"{value:.4g}" if scale > 1 or value != int(value) else f"{int(value)}"
    return f"{digits} {prefix}{unit}".rstrip()


def percent(share: float) -> str:
    """A share of one as text.

    >>> percent(0.4987)
    '49.9%'
    """
    return f"{100 * share:.1f}%"


def number_of(number: int, noun: str) -> str:
    """The number with its noun.

    >>> number_of(1, "trial"), number_of(2000, "trial")
    ('1 trial', '2,000 trials')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
