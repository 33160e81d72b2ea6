"""What was trimmed, beside the baselines, and whether the outcome can be trusted.

The checks are the failure modes that papers on differentiable search report: cells of nothing but parameter-free
operations (Liang et al. 2019, arXiv:1909.06035; Zela et al. 2020, arXiv:1909.09656), architecture weights that do not
measure importance (Wang et al. 2021, arXiv:2108.04392), proxies that only count multiply-adds (Ning et al. 2021,
arXiv:2008.03064), and batch-norm statistics of another network (Li et al. 2020, arXiv:2007.02491).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from nasprune.base import OpScorer
from nasprune.common.fields import Source, parse
from nasprune.common.records import record_of
from nasprune.supernet.price.counting import Counts
from nasprune.supernet.price.limits import Limit
from nasprune.supernet.report.checks import Check, checked
from nasprune.supernet.report.comparison import Row, compared
from nasprune.supernet.report.latency import Latency
from nasprune.supernet.report.standing import Standing
from nasprune.supernet.score.scoring import seeded
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.trim.schedules import Stage
from nasprune.supernet.trim.trimming import Data, Trimmed

__all__ = ["Check", "Row", "Standing", "TrimReport", "examined"]


@dataclass(frozen=True)
class TrimReport:
    """All that is needed to understand a trimmed supernet and to trim it again.

    settings: the options as given. budget: in words. before, after: counted for one item; predicted: `after` by the
    price list, always equal. kept: choice -> names of the candidates that stay. scores: choice -> candidate -> what is
    lost without it. rows: the chosen scorer beside the baselines. seconds: wall time of scoring, training and cutting.
    notes: sentences the user should read. standing: of what stays, by the scorer's own worths, among random selections
    of equal cost; `None` where too few of those were found. latency: measured, for budgets of time.
    """

    settings: Mapping[str, str]
    budget: str
    before: Counts
    after: Counts
    predicted: Counts
    kept: Mapping[str, tuple[str, ...]]
    scores: Mapping[str, Mapping[str, float]]
    rows: tuple[Row, ...]
    checks: tuple[Check, ...]
    seconds: float
    notes: tuple[str, ...] = ()
    standing: Standing | None = None
    latency: Latency | None = None

    @property
    def warnings(self) -> tuple[Check, ...]:
        """The checks that did not go well."""
        return tuple(check for check in self.checks if check.verdict == "warn")

    def timed(self, found: Latency, limit: Limit) -> TrimReport:
        """With what became of a budget of time."""
        return replace(self, latency=found, checks=(*self.checks, found.check(limit)))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "the text") -> TrimReport:
        """Reads what `to_json` wrote. name: of the file, for messages.

        Raises:
            InputError: the text is anything else; names file and field.
        """
        then = "choose another folder, or delete that one"
        return record_of(cls, parse(text, Source(name, "a report of a trimmed supernet", then)))


def examined(
    before: Structure,
    trimmed: Trimmed,
    scorer: OpScorer,
    stages: Sequence[Stage],
    limit: Limit | None,
    data: Data,
    settings: Mapping[str, str],
    seconds: float,
) -> TrimReport:
    """The report of one trim. Nothing that is given changes; the seed in `settings` fixes every number but the times.

    Args:
        before: the supernet that was trimmed. trimmed: what became of it.
        scorer, stages, limit, data: what it was trimmed with.
        settings: the options as given, among them "scorer" and "seed".
        seconds: that the trim took.
    """
    seed = int(settings.get("seed", "0"))
    name = settings.get("scorer", type(scorer).__name__)
    with seeded(seed, before.inputs[0].device):
        checks, notes = checked(before, trimmed, name, data, seed)
        beside = compared(before, trimmed, name, stages, limit, data, seed)
    new = [note for note in trimmed.structure.notes if note not in before.notes]
    return TrimReport(
        settings=dict(settings),
        budget=str(limit) if limit is not None else "none",
        before=before.counts,
        after=trimmed.counted,
        predicted=trimmed.predicted,
        kept={choice.name: choice.ops for choice in trimmed.structure.choices},
        scores={name: dict(scores) for name, scores in trimmed.scores.items()},
        rows=beside.rows,
        checks=checks,
        seconds=seconds,
        notes=(*new, *notes, *beside.notes),
        standing=beside.standing,
    )
