"""A plan: which units of which groups stay and which blocks go. JSON both ways; replays on the untouched model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nasprune.cut.recorded import InputSpec
from nasprune.errors import PlanError

FORMAT = 1


@dataclass(frozen=True)
class PrunePlan:
    """What to cut.

    signature: names and shapes of the dense model's parameters and buffers. keep: group -> sorted kept unit indices,
    only for groups that lose some. drop: names of dropped blocks, sorted. scope: the submodule that was cut, or `None`.
    inputs: what that submodule was called with, so that a replay can trace it again.
    """

    signature: Mapping[str, tuple[int, ...]]
    keep: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    scope: str | None = None
    inputs: InputSpec = field(default_factory=InputSpec)

    def __post_init__(self) -> None:
        for name, kept in self.keep.items():
            if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0:
                raise PlanError(f"group {name!r}: kept units must be distinct, ascending and not negative, got {kept}")
        if list(self.drop) != sorted(set(self.drop)):
            raise PlanError(f"dropped blocks must be distinct and sorted, got {self.drop}")

    @property
    def counts(self) -> dict[str, int]:
        """How many units of each cut group stay, and 0 for every dropped block: what the cost depends on."""
        return {name: len(kept) for name, kept in self.keep.items()} | dict.fromkeys(self.drop, 0)

    def check_signature(self, signature: Mapping[str, tuple[int, ...]]) -> None:
        """Raises PlanError naming the first parameter or buffer in which a model differs from the planned one."""
        for name, shape in self.signature.items():
            if name not in signature:
                raise PlanError(f"the plan was made for a model with {name!r}, which this model lacks")
            if tuple(signature[name]) != tuple(shape):
                raise PlanError(
                    f"the plan was made for a model whose {name!r} has shape {list(shape)}, "
                    f"this model has {list(signature[name])}; pass the same, unpruned model"
                )
        for name in signature:
            if name not in self.signature:
                raise PlanError(f"this model has {name!r}, which the model that the plan was made for lacks")

    def to_json(self) -> str:
        record = {
            "format": FORMAT,
            "scope": self.scope,
            **self.inputs.to_record(),
            "keep": {name: list(kept) for name, kept in sorted(self.keep.items())},
            "drop": list(self.drop),
            "signature": {name: list(shape) for name, shape in self.signature.items()},
        }
        return json.dumps(record, indent=1)

    @classmethod
    def from_json(cls, text: str) -> PrunePlan:
        """Reads what `to_json` wrote. Raises PlanError where the text is anything else."""
        try:
            record: dict[str, Any] = json.loads(text)
            if record["format"] != FORMAT:
                raise PlanError(f"expected plan format {FORMAT}, got {record['format']}; use a matching nasprune")
            return cls(
                signature={name: tuple(shape) for name, shape in record["signature"].items()},
                keep={name: tuple(kept) for name, kept in record["keep"].items()},
                drop=tuple(record["drop"]),
                scope=record["scope"],
                inputs=InputSpec.from_record(record),
            )
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise PlanError(f"not a nasprune plan: {type(error).__name__}: {error}") from error
