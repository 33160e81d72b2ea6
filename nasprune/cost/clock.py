"""Seconds of every call of a captured program, in runs of the program on its example inputs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node

from nasprune.common.untouched import undisturbed
from nasprune.graph.model import ModelGraph
from nasprune.graph.program import NO_RESULT, operator


def call_seconds(model: nn.Module, graph: ModelGraph, repeats: int = 1) -> Mapping[Node, float]:
    """Median seconds of each call, after one run that warms up.

    model: the traced part, left as it was. Errors are those of the operators.
    """
    program = graph.program
    held = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    own = {**program.constants, **dict(zip(program.inputs, graph.example_inputs.leaves, strict=True))}
    placeholders = [node.name for node in program.nodes if node.op == "placeholder"]
    runs = []
    with undisturbed(model):
        for _ in range(1 + repeats):
            leaves = [held[program.params[name]] if name in program.params else own[name] for name in placeholders]
            run = _Timed(program.module)
            run.run(*(leaf.clone() if isinstance(leaf, Tensor) and not leaf.requires_grad else leaf for leaf in leaves))
            runs.append(run.seconds)
    calls = [node for node in program.nodes if node.op == "call_function"]
    return {node: median(run[node] for run in runs[1:]) for node in calls}


class _Timed(Interpreter):
    """Runs a captured program, and keeps the seconds that each call took."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.seconds: dict[Node, float] = {}

    def run_node(self, n: Node) -> Any:
        if n.op == "call_function" and operator(n) in NO_RESULT:
            self.seconds[n] = 0.0  # what it asserts holds inside of autocast only
            return None
        start = time.perf_counter()
        result = super().run_node(n)
        if isinstance(result, Tensor) and result.is_cuda:
            torch.cuda.synchronize(result.device)
        self.seconds[n] = time.perf_counter() - start
        return result
