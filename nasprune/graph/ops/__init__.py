"""The built-in op rules, one family a file."""

from __future__ import annotations

from nasprune.graph.ops import combine, contraction, elementwise, norms, reductions, shapes, spatial
from nasprune.graph.rules import RuleTable


def builtin_rules() -> RuleTable:
    families = (combine, contraction, elementwise, norms, reductions, shapes, spatial)
    return RuleTable(rule for family in families for rule in family.RULES)
