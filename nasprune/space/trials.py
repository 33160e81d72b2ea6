"""Trials, and the best of them by cost and score. JSON both ways."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nasprune.cost.budget import Cost
from nasprune.errors import InputError
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
        """One line."""
        record = {
            "index": self.index,
            "digest": self.decision.digest,
            "score": self.score,
            "cost": asdict(self.cost),
            "seconds": round(self.seconds, 4),
            "decision": dict(self.decision),
        }
        return json.dumps(record)

    @classmethod
    def from_json(cls, line: str) -> Trial:
        """Reads what `to_json` wrote. Raises InputError where the line is anything else."""
        try:
            record: dict[str, Any] = json.loads(line)
            decision = Decision.of(record["decision"])
            if decision.digest != record["digest"]:
                raise InputError(f"trial {record['index']}: the decision does not match its digest")
            return cls(record["index"], decision, Cost(**record["cost"]), record["score"], record["seconds"])
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"not a trial record: {type(error).__name__}: {error}") from error


def pareto_front(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The trials that no other beats: none has at most their FLOPs, at least their score, and one of both better.

    By rising FLOPs, and so by rising score; of several with equal FLOPs and score the first.
    """
    flops = np.array([[trial.cost.flops] for trial in trials], dtype=np.int64).reshape(len(trials), 1)
    scores = np.array([trial.score for trial in trials], dtype=np.float64)
    return tuple(trials[i] for i in undominated(flops, -scores).tolist())
