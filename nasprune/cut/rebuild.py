"""The cut network as a fresh process will load it: built anew on the user's model, with the values that were found."""

from __future__ import annotations

import torch
from torch import nn

from nasprune.cut.compare import run
from nasprune.cut.plan import PrunePlan
from nasprune.cut.surgery import build
from nasprune.errors import VerificationError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph


def rebuilt(model: nn.Module, fitted: nn.Module, graph: ModelGraph, plan: PrunePlan) -> nn.Module:
    """The plan carried out on `model`, with the parameters and buffers of `fitted`, in eval mode.

    Nothing that `fitted` kept from being run is in it, and its outputs are the same bit for bit.

    Raises:
        VerificationError: they are not: the outputs depend on what is neither a parameter nor a persistent buffer.
    """
    small = build(model, graph, plan)
    small.load_state_dict(fitted.state_dict())
    first, second = (run(submodule(net, graph.scope), graph.example_inputs) for net in (fitted, small))
    if any(not torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise VerificationError(
            "the cut network gives other outputs once it is built anew from its plan and weights: it keeps something "
            "that matters outside of its parameters and persistent buffers; make that a buffer"
        )
    return small.eval()
