"""A plan: which units of which groups stay, which blocks go, which weights are zero; replays on the untouched model.

JSON both ways, but for the masks of weights, which lie in a file of tensors that the JSON names by its digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from nasprune.common.fields import Field, Source, parse, shown
from nasprune.common.html import code, in_notebook, table
from nasprune.common.seals import outdated, sealed, unsealed
from nasprune.cut.recorded import AXES, InputSpec
from nasprune.cut.weight_masks import WeightMasks
from nasprune.errors import PlanError

FORMAT = 2
MEMBERS = ("format", "scope", "inputs", "keep", "drop", "signature", "weights")
SHOWN = 12
"""How many groups a plan that is printed names."""
UNITS = 2**24
"""Of one group, at most."""


@dataclass(frozen=True)
class PrunePlan:
    """What to cut.

    signature: names and shapes of the dense model's parameters and buffers. keep: group -> sorted kept unit indices,
    only for groups that lose some. drop: names of dropped blocks, sorted. scope: the submodule that was cut, or `None`.
    inputs: what that submodule was called with, so that a replay can trace it again. masks: which weights of the cut
    network stay, where some are zero.
    """

    signature: Mapping[str, tuple[int, ...]]
    keep: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    scope: str | None = None
    inputs: InputSpec = field(default_factory=InputSpec)
    masks: WeightMasks = field(default_factory=WeightMasks)

    def __post_init__(self) -> None:
        for name, kept in self.keep.items():
            if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0:
                raise PlanError(f"group {name!r}: kept units must be distinct, ascending and not negative, got {kept}")
        if list(self.drop) != sorted(set(self.drop)):
            raise PlanError(f"dropped blocks must be distinct and sorted, got {self.drop}")

    def __repr__(self) -> str:
        kept = ", ".join(f"{name}: {len(units)}" for name, units in list(self.keep.items())[:SHOWN])
        more = f", and {len(self.keep) - SHOWN} more" if len(self.keep) > SHOWN else ""
        zeros = f"; {self.masks.zeros:,} weights zero" if self.masks else ""
        return f"PrunePlan(keeps {kept or 'all'}{more}; drops {', '.join(self.drop) or 'no block'}{zeros})"

    def _repr_html_(self) -> str:
        """For notebooks: a line for each group that is cut, and the blocks that go."""
        rows = [(code(name), str(len(units))) for name, units in self.keep.items()]
        kept = table(("group", "units that stay"), rows, numbers=(1,)) if rows else "<p>Every group stays whole.</p>"
        gone = ", ".join(map(code, self.drop)) or "none"
        zeros = f"; {self.masks.zeros:,} weights are zero" if self.masks else ""
        return in_notebook([f"<p><b>PrunePlan</b>; blocks that go: {gone}{zeros}</p>", kept])

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
                    f"this model has {list(signature[name])}; pass the same, unpruned model, "
                    "which after a second search is the network that the first one gave"
                )
        for name in signature:
            if name not in self.signature:
                raise PlanError(f"this model has {name!r}, which the model that the plan was made for lacks")

    def record(self) -> dict[str, object]:
        """The plan in plain values, as `of` takes it."""
        return {
            "format": FORMAT,
            "scope": self.scope,
            **self.inputs.to_record(),
            "keep": {name: list(kept) for name, kept in sorted(self.keep.items())},
            "drop": list(self.drop),
            "signature": {name: list(shape) for name, shape in self.signature.items()},
        }

    def to_json(self, *, weights: str | None = None, masks: str | None = None) -> str:
        """weights, masks: digests of the files that are saved with it.

        Raises:
            PlanError: the plan has masks, and there is no file of them.
        """
        if self.masks and masks is None:
            raise PlanError(
                "a plan with zeros inside of weights needs a file for its masks beside the JSON; save the result with "
                "nasprune.save(result, folder)"
            )
        more = {"masks": masks} if self.masks else {}
        return json.dumps(sealed({**self.record(), "weights": weights, **more}), indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> PrunePlan:
        """Reads what `to_json` wrote. Raises PlanError where the text is anything else."""
        return cls.of(plan_fields(text, "the text"))

    @classmethod
    def of(cls, record: Mapping[str, Field], masks: WeightMasks | None = None) -> PrunePlan:
        """The plan in a record that was read. masks: from the file that the record names, where it names one.

        Raises:
            PlanError: something is wrong; file and field are named.
        """
        if ("masks" in record) != (masks is not None):
            raise record["format"].source.wrong("its masks of weights lie in a file beside it, read by nasprune.load")
        keep = {name: kept.wholes(0, UNITS, UNITS) for name, kept in record["keep"].members().items()}
        for name, kept in keep.items():
            if not kept or list(kept) != sorted(set(kept)):
                raise record["keep"].members()[name].wrong("distinct units in ascending order")
        drop = record["drop"].texts()
        if list(drop) != sorted(set(drop)):
            raise record["drop"].wrong("distinct names in order")
        return cls(
            signature={name: shape.wholes(0, UNITS**2, AXES) for name, shape in record["signature"].members().items()},
            keep=keep,
            drop=drop,
            scope=None if record["scope"].absent else record["scope"].text(),
            inputs=InputSpec.of_fields(record["inputs"], record.get("keywords")),
            masks=masks or WeightMasks(),
        )


def plan_fields(text: str | bytes, name: str) -> dict[str, Field]:
    """The members of a plan's JSON, whose digest is right. name: of the file, for messages.

    Raises:
        PlanError: it is something else, or of another format.
    """
    source = Source(name, "a nasprune plan", "give a plan that nasprune saved", PlanError)
    found = parse(text, source)
    if isinstance(found.value, dict) and found.value.get("format") != FORMAT:
        number = found.value.get("format")
        before = (
            "plans before format 2 lack the digest that tells whether they are whole: search again, with the same seed"
        )
        raise PlanError(
            f"{name} is not a nasprune plan of format {FORMAT}: its format is {shown(number)}; "
            + outdated(number, FORMAT, before)
        )
    return unsealed(found).parts(*MEMBERS, optional=("keywords", "masks"))
