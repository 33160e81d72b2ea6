"""The built-in op rules, one family a file."""

from __future__ import annotations

import torch
from torch.fx import Node

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
from nasprune.graph.program import operator
from nasprune.graph.rules import OpRule, RuleTable


def rule_for(node: Node, rules: RuleTable) -> OpRule | None:
    """The rule of an operator's name; else what torch's own tag of it says."""
    tags = getattr(node.target, "tags", ())
    alone = torch.Tag.pointwise in tags and isinstance(node.meta.get("val"), torch.Tensor | list | tuple)
    return rules.find(operator(node)) or (elementwise.Pointwise() if alone else None)


def builtin_rules() -> RuleTable:
    families = (
        attention, combine, elementwise, layers, lookup, norms, products, recurrent, reductions, scatter, shapes,
        spatial,
    )  # fmt: skip
    return RuleTable(rule for family in families for rule in family.RULES)
