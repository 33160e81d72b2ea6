"""Sentences of a report about what its scores say less than they seem to."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nasprune.cut.plan import PrunePlan
from nasprune.cut.surgery import build
from nasprune.evaluators.accuracy import Accuracy
from nasprune.graph.model import ModelGraph
from nasprune.run.request import Request
from nasprune.run.rounds import Found

SEEN = (
    "The dense network is right on every {} image. These were drawn from the data given, so it has probably seen them "
    "in training, and they do not test what a cut costs on new images: give images that it was not trained on, as "
    "data=(train, test), as a `nasprune.DataSplits`, or as a folder with train/ and test/."
)


PRUNED = 0.01
"""Share of the weights of convolutions and linear layers from which on their zeros are no chance."""


def said_once(notes: Sequence[str]) -> list[str]:
    """Each sentence once; what is said of validation and of test images in one."""
    parts = [part for part in ("validation", "test") if SEEN.format(part) in notes]
    both = {SEEN.format(part): SEEN.format(" and ".join(parts)) for part in parts}
    return list(dict.fromkeys(both.get(note, note) for note in notes))


def of_scores(request: Request, found: Found) -> list[str]:
    """Images that the dense network knows by heart, and trials that the evaluator cannot tell apart."""
    notes = []
    drawn = request.data is not None and "validation" not in request.data.given
    if drawn and issubclass(request.methods.evaluator, Accuracy) and found.dense_score == 1:
        notes.append(SEEN.format("validation"))
    above = max(found.trials, key=lambda trial: trial.score)
    if above.score > found.best.score:
        notes.append(
            f"Trial {above.index} has the score {above.score:.4g} and trial {found.best.index}, the result, "
            f"{found.best.score:.4g}: compared image by image with the dense network, it is not better beyond chance."
        )
        return notes
    best = [trial for trial in found.trials if trial.score == found.best.score]
    if len({trial.decision.digest for trial in best}) > 1:
        notes.append(
            f"{len(best)} of {len(found.trials)} trials have the best score, and the first of them was taken; the "
            "evaluators `loss` and `kl` tell finer differences apart."
        )
    return notes


def of_zeros(request: Request, small: nn.Module, graph: ModelGraph, plan: PrunePlan) -> list[str]:
    """Weights of a pruned network that were zero, and are not any more in `small`, since no budget asks for it."""
    weights = _weights(request.original)
    zeros = sum(weight.numel() - int(weight.count_nonzero()) for weight in weights)
    if request.budget.limits_zeros or zeros <= PRUNED * sum(weight.numel() for weight in weights):
        return []
    before = _weights(build(request.original, graph, plan))
    pairs = zip(before, _weights(small), strict=True)
    filled = sum(int(((one == 0) & (other != 0).to(one.device)).sum()) for one, other in pairs)
    if not filled:
        return []
    return [
        f"{filled:,} weights that were zero are not any more: the refit of what stays uses all of them. "
        "Limit the numbers that are not zero as well, such as --budget 80%,90%NNZ, to have zeros again."
    ]


def _weights(model: nn.Module) -> list[Tensor]:
    """Of convolutions and linear layers."""
    return [module.weight.detach() for module in model.modules() if isinstance(module, _ConvNd | nn.Linear)]
