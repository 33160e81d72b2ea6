"""Neuron importance score propagation: Yu et al. 2018, arXiv:1711.05908.

Importance is propagated back from the final response layer: a neuron's is the sum of those of the neurons that read
it, each times the absolute weight between them (the paper's equation 16; activations, pooling and normalisation count
as the identity). Each group is scored in units of its own mean, as the paper prunes each layer by a rate of its own.

Departures: the paper ranks the final responses with Inf-FS on data; here the net's outputs all count one, so that no
data is needed. A channel that several layers make (residual additions) has one importance, that at the first of them,
which sums over every path to the output; the option `reduce` has nothing to combine. Depthwise layers count as the
identity. Outputs that are read only where channels are fixed count one, too.
"""

import weakref

import torch

from nasprune import CoupledGroup, Criterion, ScoreContext


class NISP(Criterion):
    """Importance that flows back to the unit through absolute weights."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[ScoreContext, torch.Tensor] = weakref.WeakKeyDictionary()

    def score(self, group: CoupledGroup, context: ScoreContext) -> torch.Tensor:
        if context not in self._known:
            self._known[context] = _importance(context)
        own = self._known[context][context.units(group)]
        return own / own.mean().clamp(min=1e-300)


def _importance(context: ScoreContext) -> torch.Tensor:
    """Importance (units + 1,) of every unit; the last entry, 1, is that of outputs that belong to none."""
    layers = context.layers()
    count = max((int(side.max()) for layer in layers for side in (layer.reads, layer.makes)), default=-1) + 1
    read = torch.zeros(count + 1, dtype=torch.bool, device="cpu")
    for layer in layers:
        read[layer.reads] = True
    importance = torch.where(read, 0.0, 1.0).double()
    importance[-1] = 1
    for layer in reversed(layers):
        made = importance[layer.makes]
        made = made if made.any() else torch.ones_like(made)  # read where channels are fixed and belong to no unit
        flow = layer.strength.double().T @ made
        importance.index_add_(0, torch.where(layer.reads < 0, count, layer.reads), flow)
        importance[-1] = 1
    return importance
