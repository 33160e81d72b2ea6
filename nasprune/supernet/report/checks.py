"""Checks of a trimmed supernet, each cheap beside the scoring: a number, a verdict and a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

from nasprune.cost.units import percent
from nasprune.errors import NaspruneError
from nasprune.space.choices import OpChoice
from nasprune.supernet.report.accuracy import accuracies, norms_without_averages
from nasprune.supernet.report.ranks import Values, agreement, kendall, spearman
from nasprune.supernet.score.naming import op_scorer
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.trim.trimming import Data, Trimmed, scores_of

SECONDS = ("alpha", "gate_taylor", "synflow")
"""Scorers to compare with, the most unlike first."""
FEW, HALF = 3 / 8, 1 / 2
"""Shares of parameter-free operations from which on a space has collapsed: one operation per choice, or several."""
EVEN = 0.9
"""Normalised entropy above which architecture weights say little."""
AGREE = 0.4
"""Kendall's tau below which two scorers do not agree."""
BIASED = 0.8
"""Spearman's correlation from which on a scorer is an order by FLOPs."""
DROP = 0.1
"""Accuracy lost by trimming that deserves a warning."""


Verdict = Literal["ok", "warn"]


@dataclass(frozen=True)
class Check:
    """name: what was looked at. value: a share, a correlation or an accuracy. sentence: what it means, for the user."""

    name: str
    value: float
    verdict: Verdict
    sentence: str


Found = tuple[tuple[Check, ...], tuple[str, ...]]


def checked(before: Structure, trimmed: Trimmed, scorer: str, data: Data, seed: int) -> Found:
    """All checks that what is known allows, and notes on those that it does not."""
    notes: list[str] = []
    checks = [*_collapse(before, trimmed), *_entropy(before, notes), _size_bias(before, trimmed, scorer)]
    checks += _second_opinion(before, trimmed, scorer, data, seed, notes)
    checks += _accuracies(before, trimmed, data, seed, notes)
    return tuple(checks), tuple(notes)


def _collapse(before: Structure, trimmed: Trimmed) -> Iterator[Check]:
    """Share of the kept candidates without parameters, for each kind of cell."""
    free: dict[str, list[bool]] = {}
    prices = {choice.name: choice for choice in before.choices}
    single = all(len(choice.ops) == 1 for choice in trimmed.structure.choices)
    for choice in trimmed.structure.choices:
        whole = prices[choice.name]
        counts = dict(zip(whole.ops, before.prices.of_choice(whole), strict=True))
        free.setdefault(kind_of(choice.name), []).extend(counts[op].params == 0 for op in choice.ops)
    limit, words = (FEW, "3 in 8") if single else (HALF, "half")
    for kind, flags in free.items():
        share = sum(flags) / len(flags)
        where = _where(kind)
        said = f"{sum(flags)} of the {len(flags)} operations that stay{where} have no parameters"
        if share >= limit:
            said += f", at least {words}: searches that collapse to skips and pools look like this"
        yield _check(f"parameter-free operations{where}", share, share >= limit, said)


def _where(kind: str) -> str:
    return f" in {kind.removesuffix('cell')} cells".replace("  ", " ") if kind else ""


def _entropy(structure: Structure, notes: list[str]) -> Iterator[Check]:
    """Of the shares of each choice, as a share of the largest possible, averaged."""
    shares = [structure.shares_in(structure.net, choice) for choice in structure.choices if len(choice.ops) > 1]
    known = [share for share in shares if share is not None]
    if not known or len(known) < len(shares):
        notes.append("The architecture weights are unknown, so their entropy is not shown; give `weights=`.")
        return
    value = mean(float(-(p * p.clamp(min=1e-12).log()).sum()) / math.log(len(p)) for p in known)
    said = f"the architecture weights have {percent(value)} of the entropy of even ones"
    if value > EVEN:
        said += ": they hardly tell the candidates apart, so do not pick operations by them alone"
    yield _check("entropy of the architecture weights", value, value > EVEN, said)


def _size_bias(before: Structure, trimmed: Trimmed, scorer: str) -> Check:
    costs = {
        choice.name: [
            float(counts.fvcore) for k, counts in enumerate(before.prices.of_choice(choice)) if k in choice.connecting
        ]
        for choice in before.choices
    }
    value = agreement(_connecting(before.choices, trimmed.scores), costs, spearman)
    said = f"the scores of {scorer} correlate with FLOPs by {value:.2f} (Spearman, within choices)"
    if value >= BIASED:
        said += ": little more than an order by size, so see the row of flops_order"
    return _check("size bias", value, value >= BIASED and not scorer.startswith("flops_order"), said)


def _second_opinion(
    before: Structure, trimmed: Trimmed, scorer: str, data: Data, seed: int, notes: list[str]
) -> Iterator[Check]:
    """Agreement with the first scorer of another kind that can run."""
    for name in SECONDS:
        if name == scorer.partition("(")[0]:
            continue
        try:
            found = scores_of(before, op_scorer(name), data, seed)
        except NaspruneError:
            continue
        other = {
            choice.name: dict(zip(choice.ops, found[choice.name].tolist(), strict=True)) for choice in before.choices
        }
        value = agreement(_connecting(before.choices, trimmed.scores), _connecting(before.choices, other), kendall)
        said = f"{scorer} and {name} order the candidates with Kendall's tau {value:.2f}"
        if value < AGREE:
            said += ": they disagree, so keep three candidates of each choice rather than one"
        yield _check(f"agreement with {name}", value, value < AGREE, said)
        return
    notes.append("No second scorer could run beside the chosen one, so their agreement is not shown.")


def _accuracies(before: Structure, trimmed: Trimmed, data: Data, seed: int, notes: list[str]) -> Iterator[Check]:
    if not data.validation:
        notes.append("Without data no accuracy is measured; give some with `data=` (`--data`).")
        return
    try:
        whole, whole_again = accuracies(before, data, seed)
        small, small_again = accuracies(trimmed.structure, data, seed)
    except NaspruneError as error:
        notes.append(f"No accuracy is measured: {error}.")
        return
    without, norms = norms_without_averages(trimmed.structure.net)
    if without:
        notes.append(
            f"{without} of {norms} batch norms keep no running statistics: they use those of each batch, in evaluation "
            "too, and re-estimation leaves them alone."
        )
    yield _check("accuracy before", whole, False, f"the supernet is right on {percent(whole)} of the validation images")
    yield _check("accuracy before, re-estimated", whole_again, False, _again(whole_again))
    lost, lost_again = whole - small, whole_again - small_again
    yield _check("accuracy after", small, lost > DROP, f"trimmed it is right on {percent(small)}{_advice(lost)}")
    yield _check("accuracy after, re-estimated", small_again, lost_again > DROP, _again(small_again))


def _again(value: float) -> str:
    return f"with batch-norm statistics estimated anew it is right on {percent(value)}"


def _advice(lost: float) -> str:
    return ": train it on before anything is chosen by its accuracy" if lost > DROP else ""


def _connecting(choices: Sequence[OpChoice], scores: Mapping[str, Mapping[str, float]]) -> Values:
    """The scores of the candidates that connect something, in order."""
    return {choice.name: [scores[choice.name][choice.ops[k]] for k in choice.connecting] for choice in choices}


def kind_of(name: str) -> str:
    """The kind of cell in the name of a choice such as "normal/3"; "" where it names none."""
    kind, slash, _ = name.partition("/")
    return kind if slash else ""


def _check(name: str, value: float, warn: bool, sentence: str) -> Check:
    return Check(name, round(value, 6), "warn" if warn else "ok", sentence)
