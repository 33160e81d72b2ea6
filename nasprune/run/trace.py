"""`nasprune.trace`: what the program says can be cut, and trial cuts where it does not say enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from nasprune.common.accepted import accepted
from nasprune.common.inputs import ExampleInputs, Inputs
from nasprune.common.untouched import twin
from nasprune.cut.living import kept_alive
from nasprune.cut.trial_cuts import settle
from nasprune.cut.width_records import with_records
from nasprune.graph.analysis import analyse
from nasprune.graph.model import ModelGraph
from nasprune.graph.rules import OpRule


def trace(
    model: nn.Module,
    example_inputs: ExampleInputs,
    scope: str | None = None,
    *,
    rules: Sequence[OpRule] = (),
) -> ModelGraph:
    """Finds what can be cut in `model`.

    Args:
        model: any module that torch.export can capture in eval mode, out of wrappers such as `DataParallel`; left as
            found.
        example_inputs: what the model is called with, batch first: a tensor, a tuple of positional arguments, a dict of
            keyword arguments, or a `nasprune.Inputs` with both. Numbers, `None`, lists and dicts may stand among them.
        scope: path of the submodule to look at, for models that cannot be captured whole; its outputs are frozen.
        rules: further op rules; they come before the built-in ones.

    Raises:
        TraceError: the model, or the part that `scope` names, cannot be captured.
        InputError: the model does not run on the inputs, or `scope` names nothing.
    """
    copied = twin(accepted(model))
    return traced(copied, Inputs.of(example_inputs, copied).fitting(copied), scope, rules)


def traced(copied: nn.Module, inputs: Inputs, scope: str | None, rules: Sequence[OpRule]) -> ModelGraph:
    """What can be cut in a model that nobody else holds, on inputs that fit it."""
    graph = settle(copied, analyse(copied, inputs, scope, rules))
    return with_records(copied, kept_alive(copied, replace(graph, whole_call=inputs)))
