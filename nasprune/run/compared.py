"""What the networks on the way of a search make of validation images: dense, cut alone, refitted, polished.

What of the loss is the cut's, and what refitting and polishing bring back, is seen where each stands by itself. Each
takes one pass over the validation images, 1,024 at most; the test images are looked at by none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from nasprune.common.allocation import memory_reused
from nasprune.common.calls import spoken_output
from nasprune.common.losses import divergence
from nasprune.common.untouched import undisturbed
from nasprune.cut.plan import PrunePlan
from nasprune.cut.surgery import build
from nasprune.data.batches import batches, draw, together
from nasprune.data.splits import size_of
from nasprune.graph.model import ModelGraph
from nasprune.refit.recalibrate import BATCH
from nasprune.run.request import Request
from nasprune.run.rungs import ACCURACY, CUT, DENSE, DIVERGENCE, REFITTED, UNREFITTED
from nasprune.train.targets import Classes

IMAGES = 1024


def compared(
    request: Request, graph: ModelGraph, plan: PrunePlan, fitted: nn.Module, final: nn.Module
) -> dict[str, float]:
    """What every network on the way makes of the validation images, named for a report.

    Accuracies where the images have labels, and divergences from the dense network, as those of the evaluator `kl`.
    Nothing where nothing was cut, and where outputs are not (n, classes, ...), as of detectors.

    fitted: before it was polished. final: the network of the search, `fitted` where it was not polished.
    """
    if request.data is None or not (plan.keep or plan.drop or plan.masks):
        return {}
    nets = {DENSE: request.model}
    if request.methods.refits:
        nets[UNREFITTED] = build(request.original, graph, plan).to(request.device)
    if fitted is not final:
        nets[REFITTED if request.methods.refits else UNREFITTED] = fitted
    with request.phases.phase("measuring"):
        return _measured(request, {**nets, CUT: final})


@memory_reused()
def _measured(request: Request, nets: Mapping[str, nn.Module]) -> dict[str, float]:
    assert request.data is not None
    right, apart = dict.fromkeys(nets, 0.0), dict.fromkeys(nets, 0.0)
    labelled = positions = 0
    with ExitStack() as stack:
        for net in nets.values():
            stack.enter_context(undisturbed(net))
        images_of = request.data.validation
        for images, labels in batches(images_of, together(images_of, BATCH), draw(size_of(images_of), IMAGES)):
            outputs = _outputs(nets, images, request.device)
            if outputs is None:
                return {}
            positions += outputs[DENSE].numel() // outputs[DENSE].shape[1]
            known = _known(labels, outputs[DENSE])
            labelled += int(known.sum())
            for name, value in outputs.items():
                apart[name] += float(divergence(outputs[DENSE], value, variance=request.variance))
                right[name] += float(Classes().score(value[known].cpu(), labels[known]).sum()) if known.any() else 0.0
    found = {f"{ACCURACY} {name}": right[name] / labelled for name in nets} if labelled else {}
    found |= {f"{DIVERGENCE} {name}": apart[name] / positions for name in nets if name != DENSE} if positions else {}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _outputs(nets: Mapping[str, nn.Module], images: object, device: torch.device) -> dict[str, Tensor] | None:
    """Of each network on a batch; `None` where they do not compare."""
    if not isinstance(images, Tensor):
        return None
    found: dict[str, Tensor] = {}
    for name, net in nets.items():
        given = spoken_output(net(images.to(device)))
        if given is None or len(given) != len(images) or (found and given.shape != found[DENSE].shape):
            return None
        found[name] = given.double()
    return found


def _known(labels: object, outputs: Tensor) -> Tensor:
    """(n,): which images have a class of the outputs, or at some position."""
    nothing = torch.zeros(len(outputs), dtype=torch.bool, device="cpu")
    if not isinstance(labels, Tensor) or labels.is_floating_point():
        return nothing
    if tuple(labels.shape) != (len(outputs), *outputs.shape[2:]) or int(labels.max()) >= outputs.shape[1]:
        return nothing
    return (labels.reshape(len(outputs), -1) >= 0).any(1).cpu()
