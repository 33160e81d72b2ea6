"""`nasprune.sweep`: one search for each of several budgets, with what does not depend on the budget found once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from nasprune.common.arguments import names
from nasprune.common.arguments import path as as_path
from nasprune.common.inputs import ExampleInputs
from nasprune.cost.budget import parse_budget
from nasprune.errors import InputError
from nasprune.run.result import SearchResult
from nasprune.run.search import search
from nasprune.run.sharing import Shared


def sweep(
    model: nn.Module,
    example_inputs: ExampleInputs,
    budgets: Sequence[str],
    *,
    out: str | Path | None = None,
    on_result: Callable[[SearchResult], None] | None = None,
    **options: Any,
) -> list[SearchResult]:
    """The results of `nasprune.search` within each of the budgets, in their order.

    The model is traced once, its units are scored once, harms are priced once, and the dense network leaves once what
    refits aim at. Every result is that of a search of its own.

    Args:
        model, example_inputs: as for `nasprune.search`.
        budgets: such as ["70%", "50%", "35%"].
        out: a folder with one folder in it for the trials of each search, named after its budget.
        on_result: called with each result once it is there.
        options: the other arguments of `nasprune.search`.

    Raises:
        InputError: no budgets, or one of them twice. Whatever `nasprune.search` raises, for the first budget that it
            does so for.
    """
    asked = distinct(names("budgets", budgets))
    folder = as_path("out", out, "write for example out='runs/sweep'") if out is not None else None
    shared, results = Shared(several=True), []
    for budget in asked:
        place = folder / folder_name(budget) if folder is not None else None
        results.append(search(model, example_inputs, budget, out=place, shared=shared, **options))
        if on_result is not None:
            on_result(results[-1])
    return results


def distinct(budgets: Sequence[str]) -> tuple[str, ...]:
    """The budgets, which all parse. Raises InputError where there is none, or one stands there twice."""
    if not budgets:
        raise InputError("a sweep needs budgets; give for example 70%,50%,35%")
    read = [str(parse_budget(budget, latency=True, zeros=True)) for budget in budgets]
    twice = next((budget for number, budget in enumerate(read) if budget in read[:number]), None)
    if twice is not None:
        raise InputError(f"a sweep has the budget {twice} twice; give every budget once")
    return tuple(budgets)


def folder_name(budget: str) -> str:
    """A budget with nothing in it that a shell or a file system would stumble over.

    >>> folder_name("50%, 8ms")
    '50pct_8ms'
    """
    return re.sub(r"[^\w.+-]+", "_", budget.strip().replace("%", "pct"))
