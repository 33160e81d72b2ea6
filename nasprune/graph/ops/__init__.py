"""The built-in op rules, one family a file."""

from __future__ import annotations

from nasprune.graph.ops import (
    attention,
    combine,
    elementwise,
    layers,
    lookup,
    norms,
    products,
    recurrent,
    reductions,
    scatter,
    shapes,
    spatial,
)
from nasprune.graph.rules import RuleTable


def builtin_rules() -> RuleTable:
    families = (
        attention, combine, elementwise, layers, lookup, norms, products, recurrent, reductions, scatter, shapes,
        spatial,
    )  # fmt: skip
    return RuleTable(rule for family in families for rule in family.RULES)
