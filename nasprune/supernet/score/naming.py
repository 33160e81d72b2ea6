"""What the names of scorers of operations stand for."""

from __future__ import annotations

from nasprune.base import OpScorer
from nasprune.registry import Plugins, with_options


def op_scorer(spec: str, plugins: Plugins = None) -> OpScorer:
    """The scorer of operations that `NAME` or `NAME(option=value, ...)` stands for.

    Raises:
        UnknownNameError: nothing is called so. InputError: an option is unknown, or its value is refused.
    """
    _, make, _ = with_options("op_scorers", spec, plugins)
    found: OpScorer = make()
    return found
