"""Weights that code normalises as it runs, such as standardised ones: a cut changes what is left of them."""

from __future__ import annotations

import numpy as np
from torch.fx import Node

from nasprune.cut.plan import PrunePlan
from nasprune.graph.model import Ints, ModelGraph
from nasprune.graph.ops.reductions import OVER_KEPT
from nasprune.graph.program import operator

CHANNELS_APART = ("batch_norm", "instance_norm", "group_norm")
TOGETHER = ("layer_norm", "rms_norm")


def over_fewer_inputs(graph: ModelGraph, plan: PrunePlan) -> tuple[str, ...]:
    """Paths of the modules that take a sum, mean or length over weights of which the plan leaves a part."""
    keep = graph.unit_mask(plan.keep)
    fixed: set[Node] = set()
    found: dict[str, None] = {}
    for node in graph.program.nodes:
        if node.op == "placeholder" and node.name not in graph.program.inputs:
            fixed.add(node)
        elif node.op == "call_function" and node.all_input_nodes and fixed.issuperset(node.all_input_nodes):
            fixed.add(node)
            mixed = _mixed(graph, node)
            if mixed.size and not keep[mixed].all():
                found[graph.program.owner(node).partition("@")[0]] = None
    return tuple(found)


def _mixed(graph: ModelGraph, node: Node) -> Ints:
    """The units that a statistic is taken over."""
    name, source = operator(node), node.all_input_nodes[0]
    factors = graph.values.get(source.name, ())
    if name in OVER_KEPT:
        left = [factor.units for factor in graph.values.get(node.name, ())]
        mixed = [factor.units for factor in factors if not any(np.isin(factor.units, one).any() for one in left)]
    elif name in CHANNELS_APART:
        mixed = [factor.units for factor in factors if factor.cut != 1]
    else:
        mixed = [factor.units for factor in factors] if name in TOGETHER else []
    units = np.concatenate([units.reshape(-1) for units in mixed]) if mixed else np.zeros(0, dtype=np.int64)
    return units[units >= 0]
