"""What was picked from a supernet, one operation on every edge, and whether it looks like a network worth training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from nasprune.cost.units import percent
from nasprune.errors import NaspruneError
from nasprune.supernet.genotype.spaces import Size
from nasprune.supernet.price.limits import Limit
from nasprune.supernet.report.checks import FEW, Check, kind_of
from nasprune.supernet.report.comparison import Row
from nasprune.supernet.report.health import TrimReport
from nasprune.supernet.score.naming import op_scorer
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.trim.discrete import Architecture, discretised
from nasprune.supernet.trim.trimming import Data, scores_of

TINY = 0.5
"""Share of the budget below which a network is told to be small for it."""
BASELINES = {"flops_order": 1, "random": 3}
DISCRETE = "discretise"
"""The setting that tells reports of networks from those of trims."""


def described(
    structure: Structure,
    scores: Mapping[str, Tensor],
    found: Architecture,
    limit: Limit | None,
    size: Size | None,
    settings: Mapping[str, str],
    seconds: float,
) -> Architecture:
    """The architecture with its report, and with the warnings among its notes."""
    checks = (*_free(structure, found), *_tiny(found, limit))
    rows = _rows(structure, found, settings["scorer"], limit, size, int(settings["seed"]))
    report = TrimReport(
        settings={**settings, DISCRETE: "True"},
        budget=str(limit) if limit is not None else "none",
        before=structure.counts,
        after=found.counts,
        predicted=found.counts,
        kept={name: (op,) for name, op in found.ops.items()},
        scores={one.name: dict(zip(one.ops, scores[one.name].tolist(), strict=True)) for one in structure.choices},
        rows=rows,
        checks=checks,
        seconds=seconds,
    )
    return replace(found, report=report, notes=tuple(check.sentence for check in report.warnings))


def _free(structure: Structure, found: Architecture) -> Iterator[Check]:
    """Share of operations without parameters, for each kind of cell; all of them is no network."""
    free: dict[str, list[bool]] = {}
    for choice in structure.choices:
        if found.ops.get(choice.name) in choice.ops:
            counts = dict(zip(choice.ops, structure.prices.of_choice(choice), strict=True))
            free.setdefault(kind_of(choice.name), []).append(counts[found.ops[choice.name]].params == 0)
    for kind, flags in free.items():
        share, where = sum(flags) / len(flags), f" in {kind} cells".replace("cell cells", "cells") if kind else ""
        said = f"{sum(flags)} of the {len(flags)} operations{where} have no parameters"
        if share == 1:
            said += ": nothing is left there to train but what surrounds them; rank the operations by another scorer"
        elif share >= FEW:
            said += (
                ", at least 3 in 8: searches that collapse to skips and pools look like this; rank the operations by "
                "another scorer, or train it longer"
            )
        yield Check(f"parameter-free operations{where}", round(share, 6), "warn" if share >= FEW else "ok", said)


def _tiny(found: Architecture, limit: Limit | None) -> Iterator[Check]:
    if limit is None:
        return
    cost = found.nanoseconds or 0 if limit.counter == "latency" else found.counts[limit.counter]
    share = cost / limit.number
    said = f"the network uses {percent(share)} of its budget"
    if share < TINY:
        said += ": the scorer leaves room that operations could use; take a smaller budget or another scorer"
    yield Check("share of the budget", round(share, 6), "warn" if share < TINY else "ok", said)


def _rows(
    structure: Structure, found: Architecture, scorer: str, limit: Limit | None, size: Size | None, seed: int
) -> tuple[Row, ...]:
    """The network beside those of the baselines within the same budget."""
    rows = [_row(scorer, [found], found)]
    for name, draws in BASELINES.items():
        if name == scorer.partition("(")[0]:
            continue
        try:
            others = [
                discretised(
                    structure, scores_of(structure, op_scorer(name), Data(), seed + draw), limit, size, inherit=False
                )
                for draw in range(draws)
            ]
        except NaspruneError:
            continue
        rows.append(_row(name, others, found))
    return tuple(rows)


def _row(name: str, networks: Sequence[Architecture], chosen: Architecture) -> Row:
    wanted = set(chosen.ops.items())
    count = len(networks)
    return Row(
        scorer=name,
        draws=count,
        overlap=sum(len(wanted & set(one.ops.items())) for one in networks) / count / max(len(wanted), 1),
        candidates=sum(len(one.ops) for one in networks) / count,
        fvcore=sum(one.counts.fvcore for one in networks) / count,
        macs=sum(one.counts.macs for one in networks) / count,
    )
