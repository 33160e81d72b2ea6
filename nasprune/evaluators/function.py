"""A function of the user's own as an evaluator: `file.py:function` or `module:function`, called as function(model).

It gets the cut network in eval mode, refitted, or, where calibration images are given, with batch norms re-estimated;
gradients are off. It returns one number, higher is better, and must be a function of the network alone.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nasprune.base import Candidate, EvaluationTask, Evaluator
from nasprune.common.blame import running
from nasprune.errors import PluginError
from nasprune.evaluators.measured import Ready


class OwnFunction(Evaluator):
    """Scores with `function`, which `name` names in messages; made by `evaluator_of`."""

    reads_labels: ClassVar[bool] = False

    name: ClassVar[str]
    function: ClassVar[Callable[[nn.Module], Any]]

    def __init__(self, task: EvaluationTask) -> None:
        self._ready = Ready(task)

    def evaluate(self, candidate: Candidate) -> float:
        model = self._ready(candidate)
        with (
            running(type(self).function, f"the evaluator {self.name!r}, called with the cut network,"),
            torch.no_grad(),
        ):
            found = type(self).function(model)
        if isinstance(found, Tensor) and found.numel() == 1:
            found = found.item()
        if not isinstance(found, Real):
            raise PluginError(
                f"the evaluator {self.name!r} must return one number, higher is better, got a {type(found).__name__}"
            )
        return float(found)


def evaluator_of(function: Callable[[nn.Module], Any], name: str = "") -> type[OwnFunction]:
    """An evaluator class around the function, which `name`, by default its own, names in messages."""
    name = name or getattr(function, "__qualname__", type(function).__qualname__)
    return type("OwnFunction", (OwnFunction,), {"name": name, "function": staticmethod(function)})
