"""A structure and a budget for it, with the times of its candidates where the budget is one of time."""

from __future__ import annotations

from dataclasses import replace

from nasprune.supernet.find.choices import everything
from nasprune.supernet.price.counting import Counter
from nasprune.supernet.price.limits import Limit, counter_of, parse_limit
from nasprune.supernet.price.times import measured_times
from nasprune.supernet.structure.structure import Structure


def limited(
    structure: Structure, budget: str | None, count: Counter, *, table: bool = True
) -> tuple[Structure, Limit | None]:
    """The limit that a budget sets, and the structure, in which times are measured where the limit needs them.

    Args:
        table: whether times of candidates are needed for budgets in milliseconds too; for shares they always are.

    Raises:
        BudgetError: the budget does not parse. InputError: there is no such counter.
    """
    if budget is None:
        return structure, None
    if counter_of(budget, count) == "latency" and structure.times is None and (table or "%" in budget):
        times = measured_times(structure.net, structure.mixed, structure.choices, structure.inputs)
        structure = replace(structure, times=times)
    whole = structure.times.of_kept(structure.choices, everything(structure.choices)) if structure.times else None
    return structure, parse_limit(budget, structure.counts, count, whole)
