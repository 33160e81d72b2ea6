"""Architecture weights as scores: Liu, Simonyan & Yang 2019 (DARTS, arXiv:1806.09055).

Tools read the same weights differently, so the rule has a name:

- `darts`: softmax over all candidates, `none` among them; the authors' rule for edges compares these shares.
- `no_none`: softmax over the candidates that connect something (NASLib); `none` gets 0.
- `logit`: the weights before the softmax (NNI), counted from the lowest of the supernet, which changes no comparison.
- `alpha_beta`: `darts` times the weight of the edge (Xu et al. 2020, PC-DARTS, arXiv:1907.05737).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nasprune.base import OpScorer, OpTask
from nasprune.errors import InputError
from nasprune.space.choices import OpChoice

RULES = ("darts", "no_none", "logit", "alpha_beta")


class Alpha(OpScorer):
    """The share of a candidate in the mixture. rule: "darts", "no_none", "logit" or "alpha_beta".

    `alpha_beta` needs `Supernet.from_model(edge_weights=...)`, which gives the share of each edge in its node.
    """

    needs_weights = True

    def __init__(self, *, rule: str = "darts") -> None:
        if rule not in RULES:
            raise InputError(f"`rule` must be one of {', '.join(RULES)}, got {rule!r}")
        self._rule = rule

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        if self._rule == "logit":
            logits = {choice.name: _logits(task, choice) for choice in task.choices}
            least = min((float(values.min()) for values in logits.values()), default=0.0)
            return {name: values - least for name, values in logits.items()}
        shares = {choice.name: _shares(task, choice) for choice in task.choices}
        if self._rule == "no_none":
            return {choice.name: _without_none(choice, shares[choice.name]) for choice in task.choices}
        if self._rule == "alpha_beta":
            return {choice.name: shares[choice.name] * _edge_weight(task, choice) for choice in task.choices}
        return shares


def _logits(task: OpTask, choice: OpChoice) -> Tensor:
    found = task.logits(choice)
    if found is None:
        raise InputError(
            f"the architecture weights of {choice.name!r} before the softmax are unknown, which `rule=logit` compares; "
            "give `weights=`, or take `rule=darts`"
        )
    return found.detach().double().cpu()


def _shares(task: OpTask, choice: OpChoice) -> Tensor:
    found = task.logits(choice)
    if found is not None:
        return found.detach().double().cpu().softmax(0)
    shares = task.shares(choice)
    if shares is None:
        raise InputError(f"the architecture weights of {choice.name!r} are unknown; give `weights=`")
    return shares.detach().double().cpu()


def _without_none(choice: OpChoice, shares: Tensor) -> Tensor:
    kept = shares.clone()
    if choice.connecting:
        kept[list(choice.empty)] = 0.0
    total = kept.sum()
    return kept / total if total > 0 else kept


def _edge_weight(task: OpTask, choice: OpChoice) -> float:
    found = task.edge_weight(choice)
    if found is None:
        raise InputError(
            f"`rule=alpha_beta` needs the weight of the edge {choice.name!r} among those into its node, as PC-DARTS "
            "trains it; give `edge_weights=` to `Supernet.from_model`, or take `rule=darts`"
        )
    return found
