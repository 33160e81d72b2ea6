"""Trials, the best of them by cost and score, and the report of a search. JSON both ways."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from nasprune.budget import Cost
from nasprune.errors import InputError
from nasprune.pareto import undominated
from nasprune.space import Decision


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


@dataclass(frozen=True)
class FrontPoint:
    """A trial on the Pareto front. trial: its index in `trials.jsonl`; decision: its digest."""

    trial: int
    decision: str
    cost: Cost
    score: float


def pareto_front(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The trials that no other beats: none has at most their FLOPs, at least their score, and one of both better.

    By rising FLOPs, and so by rising score; of several with equal FLOPs and score the first.
    """
    flops = np.array([[trial.cost.flops] for trial in trials], dtype=np.int64).reshape(len(trials), 1)
    scores = np.array([trial.score for trial in trials], dtype=np.float64)
    return tuple(trials[i] for i in undominated(flops, -scores).tolist())


@dataclass(frozen=True)
class GroupOutcome:
    """What a search did to one group."""

    name: str
    width: int
    kept: int
    frozen_because: str | None = None


@dataclass(frozen=True)
class Proof:
    """The outcome of `nasprune.verify`.

    max_error: largest difference between the masked dense model and the cut one, relative to the largest output, in
    `dtype`. flops: fvcore's count on the cut model; predicted_flops: the formula's. frozen: what had to be frozen on
    the way, with reasons.
    """

    ok: bool
    max_error: float
    tolerance: float
    dtype: str
    flops: int
    predicted_flops: int
    frozen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchReport:
    """All that is needed to understand a search and to recompute it.

    settings: the options as given, names and values. dense, cut: costs before and after. score, dense_score: of the
    evaluator, `dense_score` is `None` where the dense model cannot be scored. measured: further measurements, such as
    "latency_ms dense" -> 12.3. notes: sentences the user should read. front: see `pareto_front`.
    """

    settings: Mapping[str, str]
    budget: str
    dense: Cost
    cut: Cost
    score: float
    dense_score: float | None
    trials: int
    seconds: float
    groups: tuple[GroupOutcome, ...]
    dropped_blocks: tuple[str, ...]
    proof: Proof
    measured: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    front: tuple[FrontPoint, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> SearchReport:
        """Reads what `to_json` wrote. Raises InputError where the text is anything else."""
        try:
            record: dict[str, Any] = json.loads(text)
            record["dense"], record["cut"] = Cost(**record["dense"]), Cost(**record["cut"])
            record["groups"] = tuple(GroupOutcome(**group) for group in record["groups"])
            record["proof"] = Proof(**record["proof"])
            record["dropped_blocks"], record["notes"] = tuple(record["dropped_blocks"]), tuple(record["notes"])
            record["front"] = tuple(
                FrontPoint(**{**point, "cost": Cost(**point["cost"])}) for point in record.get("front", ())
            )
            return cls(**record)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f"not a search report: {type(error).__name__}: {error}") from error
