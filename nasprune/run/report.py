"""The report of a search. JSON both ways."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nasprune.cost.budget import Cost
from nasprune.cost.uncounted import Uncounted
from nasprune.cut.proof import Proof
from nasprune.errors import InputError


@dataclass(frozen=True)
class FrontPoint:
    """A trial on the Pareto front. trial: its index in `trials.jsonl`; decision: its digest."""

    trial: int
    decision: str
    cost: Cost
    score: float


@dataclass(frozen=True)
class GroupOutcome:
    """What a search did to one group."""

    name: str
    width: int
    kept: int
    frozen_because: str | None = None


@dataclass(frozen=True)
class SearchReport:
    """All that is needed to understand a search and to recompute it.

    settings: the options as given, names and values. dense, cut: costs before and after. score, dense_score: of the
    evaluator, `dense_score` is `None` where the dense model cannot be scored. measured: further measurements, such as
    "latency_ms dense" -> 12.3. notes: sentences the user should read. front: see `nasprune.pareto_front`.
    uncounted: what the dense network runs and FLOPs do not count, with its share of the time.
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
    uncounted: tuple[Uncounted, ...] = ()

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
            record["uncounted"] = tuple(Uncounted(**item) for item in record.get("uncounted", ()))
            return cls(**record)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f"not a search report: {type(error).__name__}: {error}") from error
