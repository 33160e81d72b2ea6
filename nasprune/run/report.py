"""The report of a search. JSON both ways."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from nasprune.common.fields import Source, parse
from nasprune.common.phases import PhaseCost
from nasprune.common.records import record_of
from nasprune.cost.budget import Cost
from nasprune.cost.uncounted import Uncounted
from nasprune.cut.proof import Proof


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
class LayerTime:
    """Milliseconds of one layer, a module that holds no others, in one run of the dense and of the cut network."""

    layer: str
    dense_ms: float
    cut_ms: float


@dataclass(frozen=True)
class LayerOutcome:
    """A layer that may have zeros: its weights, and how many of them are not held at zero."""

    layer: str
    size: int
    kept: int


@dataclass(frozen=True)
class Sparsity:
    """Zeros inside of weights. dense, cut: numbers of all parameters that are not zero; layers: as they run."""

    dense: int
    cut: int
    layers: tuple[LayerOutcome, ...]


@dataclass(frozen=True)
class SearchReport:
    """All that is needed to understand a search and to recompute it.

    settings: the options as given, names and values. dense, cut: costs before and after. score, dense_score: of the
    evaluator, `dense_score` is `None` where the dense model cannot be scored. measured: further measurements, such as
    "latency_ms dense" -> 12.3. notes: sentences the user should read. front: see `nasprune.pareto_front`.
    uncounted: what the dense network runs and FLOPs do not count, with its share of the time.
    phases: what each part of the search took, in the order in which they first ended.
    layers: what layers take, those of the cut network that take most first. sparsity: where the
    budget asked for zeros inside of weights.
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
    phases: tuple[PhaseCost, ...] = ()
    layers: tuple[LayerTime, ...] = ()
    sparsity: Sparsity | None = None

    def __repr__(self) -> str:
        """One line; `to_json` has all, and a result and its page show it as tables."""
        kept = f"{self.cut.flops / self.dense.flops:.1%} of its FLOPs" if self.dense.flops else "all"
        proved = "proved" if self.proof.ok else "not proved"
        return f"SearchReport({self.settings.get('model', 'model')} within {self.budget}: {kept}, {proved})"

    @property
    def latency_label(self) -> str:
        """What latencies were measured at, in words."""
        return f"latency at {self.settings.get('latency', 'batch 1')}"

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "the text") -> SearchReport:
        """Reads what `to_json` wrote. name: of the file, for messages.

        Raises:
            InputError: the text is anything else; names file and field.
        """
        then = "choose another folder, or delete that one"
        return record_of(cls, parse(text, Source(name, "a search report", then)))
