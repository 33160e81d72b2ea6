"""What the FLOPs of a network leave out, and when that is too much.

Element-wise operators, norms, pooling and whatever moves data count nothing by convention. Any other operator without a
formula does work that nobody counts, and is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nasprune.cost.budget import Budget
from nasprune.cost.units import percent
from nasprune.errors import BudgetError

MOST = 0.05
"""The share of the time that operators without a formula may take where a share of the FLOPs is asked for."""


@dataclass(frozen=True)
class Uncounted:
    """An operator without a formula, or a kind of operators that count nothing by convention.

    share: of the time of one run, in [0, 1]. site: the line that ran it first, "" for a kind.
    """

    operator: str
    share: float
    by_convention: bool
    site: str = ""

    def __str__(self) -> str:
        return f"{self.operator} {percent(self.share)}"


def check_counted(budget: Budget, found: Sequence[Uncounted]) -> None:
    """Raises BudgetError where the budget is a share of FLOPs that leave out too much of the work."""
    unknown = [item for item in found if not item.by_convention]
    share = sum(item.share for item in unknown)
    if budget.flops_share is None or share <= MOST:
        return
    names = ", ".join(f"`{item.operator}` at {item.site} ({percent(item.share)})" for item in unknown)
    raise BudgetError(
        f"the budget {str(budget)!r} is a share of FLOPs, which leave out {percent(share)} of the measured time: "
        f"nasprune has no formula for {names}; give a number of FLOPs or parameters, or take the share of what is "
        "counted with `allow_uncounted=True` (`--allow-uncounted`)"
    )
