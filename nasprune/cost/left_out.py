"""A timed run of a captured program: what takes time and counts no FLOPs."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node

from nasprune.common.untouched import undisturbed
from nasprune.cost.kinds import has_formula, kind_of
from nasprune.cost.uncounted import Uncounted
from nasprune.graph.model import ModelGraph
from nasprune.graph.program import operator, site


def left_out(model: nn.Module, graph: ModelGraph) -> tuple[Uncounted, ...]:
    """What `model`, traced as `graph`, runs without counting it: operators without a formula first, longest first.

    model: the traced part. It runs twice on the graph's example inputs, and is left as it was. Nothing is said of a
    program that does not run by itself.
    """
    program = graph.program
    held = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    own = {**program.constants, **dict(zip(program.inputs, graph.example_inputs.leaves, strict=True))}
    placeholders = [node.name for node in program.nodes if node.op == "placeholder"]

    def seconds() -> Mapping[Node, float]:
        leaves = [held[program.params[name]] if name in program.params else own[name] for name in placeholders]
        run = _Timed(program.module)
        run.run(*(leaf.clone() if isinstance(leaf, Tensor) and not leaf.requires_grad else leaf for leaf in leaves))
        return run.seconds

    try:
        with undisturbed(model):
            seconds()  # warms up
            spent = seconds()
    except Exception as error:  # the operators of the user's code may refuse their arguments in any way
        logging.getLogger(__name__).warning("what the FLOPs leave out could not be measured: %s", error)
        return ()
    return _summed({node: spent[node] for node in program.nodes if node.op == "call_function"})


class _Timed(Interpreter):
    """Runs a captured program, and keeps the seconds that each call took."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.seconds: dict[Node, float] = {}

    def run_node(self, n: Node) -> Any:
        start = time.perf_counter()
        result = super().run_node(n)
        if isinstance(result, Tensor) and result.is_cuda:
            torch.cuda.synchronize(result.device)
        self.seconds[n] = time.perf_counter() - start
        return result


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
