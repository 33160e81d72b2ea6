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

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from nasprune import InputError, OpScorer, OpTask, flow_of_ones, open_gates, positive_weights, repeatable


class SynFlow(OpScorer):
    """The share of the synaptic flow that passes a candidate. One forward and one backward pass of one item."""

    needs_data: ClassVar[bool] = False

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        gates = {name: gate.detach().double().requires_grad_() for name, gate in open_gates(task).items()}
        with repeatable(task), positive_weights(task), torch.enable_grad(), task.gated(gates):
            whole = flow_of_ones(task)
            slopes = torch.autograd.grad(whole, list(gates.values()), allow_unused=True, materialize_grads=True)
        total = float(whole.detach())
        scores = {name: slope.double().cpu() for name, slope in zip(gates, slopes, strict=True)}
        if not all(score.isfinite().all() for score in (*scores.values(), whole)):
            raise InputError("the flow through the supernet is too large for float64; take another scorer")
        return {name: score / total if total else torch.zeros_like(score) for name, score in scores.items()}
