"""SynFlow on operations: Tanaka et al. 2020, arXiv:2006.05467; as a score of candidates Xiang et al. 2021,
arXiv:2106.08619.

    R = sum of the outputs for an input of ones, every weight replaced by its absolute value
    score = (g dR/dg) / R,   g = 1 the factor on the candidate's output

the share of the flow that passes the candidate, by one backward pass for all of them. Where a choice stands at one
place this is exactly what R loses without the candidate, as a share; where tied places follow one another, a path
through several of them counts as often. No data is used.

Batch norms are left out (identity) and numbers are float64, as is usual: R grows with depth beyond float32. Departures:
the weights of the mixture stay as they are, they are no connections; a sum over a candidate's own parameters, the other
use of synflow, would give skip connections and pools nothing, and is not offered.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from nasprune import InputError, OpScorer, OpTask, open_gates, repeatable, weights_of


class SynFlow(OpScorer):
    """The share of the synaptic flow that passes a candidate. One forward and one backward pass of one item."""

    needs_data: ClassVar[bool] = False

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        gates = {name: gate.detach().double().requires_grad_() for name, gate in open_gates(task).items()}
        example = task.example[:1]  # words, and whatever else has a number that only names it, stay as they are
        inputs = torch.ones_like(example, dtype=torch.float64) if example.is_floating_point() else example
        with repeatable(task), _positive(task), torch.enable_grad(), task.gated(gates):
            outputs = [leaf for leaf in tree_leaves(task.net(inputs)) if isinstance(leaf, Tensor)]
            flow = torch.stack([output.sum() for output in outputs if output.is_floating_point()]).sum()
            slopes = torch.autograd.grad(flow, list(gates.values()), allow_unused=True, materialize_grads=True)
        total = float(flow.detach())
        scores = {name: slope.double().cpu() for name, slope in zip(gates, slopes, strict=True)}
        if not all(score.isfinite().all() for score in (*scores.values(), flow)):
            raise InputError("the flow through the supernet is too large for float64; take another scorer")
        return {name: score / total if total else torch.zeros_like(score) for name, score in scores.items()}


@contextmanager
def _positive(task: OpTask) -> Iterator[None]:
    """Inside, weights are their absolute values in float64 and batch norms do nothing. Nothing stays behind.

    Buffers are float64 too, with the values that they have.
    """
    own = {id(parameter) for parameter in weights_of(task)}
    parameters = [p for p in task.net.parameters() if p.is_floating_point()]
    buffers = [buffer for buffer in task.net.buffers() if buffer.is_floating_point()]
    values = [tensor.data for tensor in (*parameters, *buffers)]
    norms = [(vars(module), vars(module).get("forward")) for module in task.net.modules() if _is_norm(module)]
    try:
        for parameter in parameters:
            weight = id(parameter) in own or not parameter.requires_grad
            parameter.data = parameter.data.double().abs() if weight else parameter.data.double()
        for buffer in buffers:
            buffer.data = buffer.data.double()
        for attributes, _ in norms:
            attributes["forward"] = _same
        yield
    finally:
        for tensor, value in zip((*parameters, *buffers), values, strict=True):
            tensor.data = value
        for attributes, forward in norms:
            attributes.pop("forward")
            if forward is not None:
                attributes["forward"] = forward


def _is_norm(module: object) -> bool:
    return isinstance(module, _BatchNorm)


def _same(inputs: Tensor) -> Tensor:
    return inputs
