"""A timed run of a captured program: what takes time and counts no FLOPs."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping

from torch import nn
from torch.fx import Node

from nasprune.common.factories import one_line
from nasprune.cost.clock import call_seconds
from nasprune.cost.kinds import has_formula, kind_of
from nasprune.cost.uncounted import Uncounted
from nasprune.graph.model import ModelGraph
from nasprune.graph.program import operator, site


def left_out(model: nn.Module, graph: ModelGraph) -> tuple[Uncounted, ...]:
    """What `model`, traced as `graph`, runs without counting it: operators without a formula first, longest first.

    model: the traced part. It runs twice on the graph's example inputs, and is left as it was. Nothing is said of a
    program that does not run by itself.
    """
    try:
        spent = call_seconds(model, graph)
    except Exception as error:  # the operators of the user's code may refuse their arguments in any way
        logging.getLogger(__name__).warning("what the FLOPs leave out could not be measured: %s", one_line(error))
        return ()
    return _summed(spent)


def _summed(seconds: Mapping[Node, float]) -> tuple[Uncounted, ...]:
    whole = sum(seconds.values()) or 1.0
    spent: dict[tuple[str, bool], float] = defaultdict(float)
    sites: dict[str, str] = {}
    for node, time_taken in seconds.items():
        if has_formula(node):
            continue
        kind = kind_of(node)
        spent[kind or operator(node), kind is not None] += time_taken
        if kind is None:
            sites.setdefault(operator(node), site(node))
    return tuple(
        Uncounted(name, time_taken / whole, by_convention, sites.get(name, "") if not by_convention else "")
        for (name, by_convention), time_taken in sorted(spent.items(), key=lambda item: (item[0][1], -item[1]))
    )
