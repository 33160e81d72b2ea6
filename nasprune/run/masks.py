"""The masks of a plan in the folder of a run: boolean tensors beside `plan.json`, bound to it by their digest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from nasprune.common.fields import Field
from nasprune.common.seals import check_bound
from nasprune.cut.plan import PrunePlan
from nasprune.cut.weight_masks import WeightMasks
from nasprune.errors import InputError, PlanError
from nasprune.models.weights import read_tensors

MASKS = "masks.safetensors"


def plan_in(folder: Path, record: Mapping[str, Field], then: str) -> PrunePlan:
    """The plan that `record` describes, with its masks where it has some. then: what to do where they are missing.

    Raises:
        InputError: the masks are missing, damaged or of another save. PlanError: the plan is damaged.
    """
    if "masks" not in record:
        return PrunePlan.of(record)
    path = folder / MASKS
    check_bound(path, record["masks"], "masks", then)
    try:
        masks = WeightMasks(read_tensors(path))
    except PlanError as error:
        raise InputError(f"masks {str(path)!r} are no masks: {error}; save again") from error
    return PrunePlan.of(record, masks)


def check_zeros(masks: WeightMasks, part: nn.Module, then: str) -> None:
    """Raises InputError where a weight of the cut `part` is not zero and its mask says so. then: what to do."""
    filled = masks.filled(part)
    if filled is not None:
        raise InputError(f"{filled!r} has weights other than zero where the plan masks them; {then}")
