"""Trials, and the best of them by cost and score. JSON both ways."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from nasprune.common.fields import Field, Source, parse
from nasprune.common.records import record_of
from nasprune.common.seals import digest_of
from nasprune.cost.budget import Cost
from nasprune.space.choices import Decision
from nasprune.space.pareto import undominated


@dataclass(frozen=True)
class Trial:
    """One evaluated decision. index counts from 0; score: higher is better; seconds: wall time of the evaluation."""

    index: int
    decision: Decision
    cost: Cost
    score: float
    seconds: float

    def to_json(self) -> str:
        """One line, with a digest of the decision and one of everything."""
        record = {
            "index": self.index,
            "digest": self.decision.digest,
            "score": self.score,
            "cost": asdict(self.cost),
            "seconds": round(self.seconds, 4),
            "decision": dict(self.decision),
        }
        return json.dumps({**record, "check": _check(record)})

    @classmethod
    def from_json(cls, line: str | bytes, name: str = "the text") -> Trial:
        """Reads what `to_json` wrote. name: of the file and the line, for messages.

        Raises:
            InputError: the line is anything else; names the field.
        """
        return cls.of(parse(line, Source(name, "a trial record", "choose another folder")))

    @classmethod
    def of(cls, found: Field) -> Trial:
        """The trial in a line that was parsed. Raises InputError as `from_json`."""
        parts = found.parts("index", "digest", "score", "cost", "seconds", "decision", "check")
        decision = Decision.of({name: option.whole() for name, option in parts["decision"].members().items()})
        if decision.digest != parts["digest"].text():
            raise parts["digest"].wrong(f"the digest {decision.digest} of its decision")
        record = {name: value for name, value in found.value.items() if name != "check"}
        if parts["check"].text() != _check(record):
            raise found.source.wrong("it was changed after it was written: its content does not match its `check`")
        return cls(
            index=parts["index"].whole(),
            decision=decision,
            cost=record_of(Cost, parts["cost"]),
            score=parts["score"].number(),
            seconds=parts["seconds"].number(0),
        )


def _check(record: Mapping[str, object]) -> str:
    return digest_of(record)[:16]


def pareto_front(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The trials that no other beats: none has at most their FLOPs, at least their score, and one of both better.

    By rising FLOPs, and so by rising score; of several with equal FLOPs and score the first.
    """
    flops = np.array([[trial.cost.flops] for trial in trials], dtype=np.int64).reshape(len(trials), 1)
    scores = np.array([trial.score for trial in trials], dtype=np.float64)
    return tuple(trials[i] for i in undominated(flops, -scores).tolist())
