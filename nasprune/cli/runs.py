"""Folders of runs: their report, their plan, and the dense model that they were made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.errors import InputError

if TYPE_CHECKING:
    from nasprune.cut.plan import PrunePlan
    from nasprune.run.report import SearchReport

LIBRARIES = ("torchvision", "timm", "nasprune.models")
"""Sources of models that a file may name, since nothing of the user's is imported for them."""


def report_of(folder: Path) -> SearchReport:
    """The report of a run. Raises InputError where there is none, or it is damaged."""
    from nasprune.common.fields import LARGEST
    from nasprune.common.files import content_of
    from nasprune.run.checkpoint import REPORT, THEN
    from nasprune.run.report import SearchReport

    path = folder / REPORT
    return SearchReport.from_json(content_of(path, "the report", THEN, most=LARGEST), repr(str(path)))


def plan_of(folder: Path) -> PrunePlan:
    """The plan of a run. Raises InputError where there is none, or it is damaged."""
    from nasprune.common.fields import LARGEST
    from nasprune.common.files import content_of
    from nasprune.cut.plan import PrunePlan, plan_fields
    from nasprune.run.checkpoint import PLAN, THEN

    path = folder / PLAN
    return PrunePlan.of(plan_fields(content_of(path, "the plan", THEN, most=LARGEST), repr(str(path))))


def dense_spec(folder: Path, report: SearchReport, typed: str | None) -> str:
    """The dense model's name. One that would run code of the user's has to be typed, and is not taken from a file."""
    if typed is not None:
        return typed
    spec = report.settings.get("model", "")
    if spec.partition(":")[0] in LIBRARIES and ":" in spec:
        return spec
    raise InputError(
        f"the search in {str(folder)!r} was made from {spec or 'a model without a name'!r}, which a file must not "
        "choose to run; say which model it was with --model"
    )
