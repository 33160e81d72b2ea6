"""Folders of runs: their report, their plan, and the dense model that they were made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.common.words import shell_path
from nasprune.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from nasprune.common.inputs import Inputs
    from nasprune.cut.plan import PrunePlan
    from nasprune.models.loading import LoadedModel
    from nasprune.run.report import SearchReport

LIBRARIES = ("torchvision", "timm", "nasprune.models")
"""Sources of models that a file may name, since nothing of the user's is imported for them."""
ACCURACIES = ("test accuracy", "accuracy on seen images")
"""What a report may have measured of a net."""
TUNED = "finetuned"
"""The folder of a training within that of the search."""


def report_of(folder: Path) -> SearchReport:
    """The report of a run. Raises InputError where the folder is of none, or the report is damaged."""
    from nasprune.run.checkpoint import read_report

    _check_run(folder)
    return read_report(folder)


def runs_in(folder: Path) -> list[Path]:
    """The folders of runs in the folder of a sweep, or in any other that is of no run itself."""
    from nasprune.run.checkpoint import REPORT

    if (folder / REPORT).exists():
        return []
    return sorted(path.parent for path in folder.glob(f"*/{REPORT}") if not _is_trimmed(path.parent))


def tuned_in(folder: Path) -> SearchReport | None:
    """The report of what was trained in the folder of a search; `None` where nothing was."""
    from nasprune.run.checkpoint import REPORT

    return report_of(folder / TUNED) if (folder / TUNED / REPORT).is_file() else None


def accuracies(report: SearchReport) -> dict[str, float]:
    """Net -> accuracy on test images, or on seen ones, one after the other, as far as they were measured."""
    from nasprune.run.page import NETS

    found = {}
    for name, value in report.measured.items():
        quantity, _, net = name.rpartition(" ")
        if quantity in ACCURACIES:
            found[net] = value
    return {net: found[net] for net in NETS if net in found}


def accuracy_name(report: SearchReport) -> str:
    """What the accuracies of a report are: of test images, or of seen ones."""
    return next(name for name in ACCURACIES if any(key.startswith(f"{name} ") for key in report.measured))


def plan_of(folder: Path) -> PrunePlan:
    """The plan of a run. Raises InputError where the folder is of none, or the plan is damaged."""
    from nasprune.run.checkpoint import read_plan

    _check_run(folder)
    return read_plan(folder)


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


def small_network(
    run: Path, model: str | None, input_size: str | None, plugins: tuple[Path, ...]
) -> tuple[nn.Module, Inputs, str]:
    """The small network of a run, what it is called with, and the name of the dense one; options as typed."""
    from nasprune.common.inputs import Inputs
    from nasprune.models.loading import load_model
    from nasprune.run.checkpoint import load

    plan = plan_of(run)
    report = report_of(run)
    spec = dense_spec(run, report, model)
    recorded = plan.inputs.noise() if plan.inputs and plan.scope is None else None

    def shape_of_plan() -> tuple[int, ...]:
        assert recorded is not None
        return tuple(recorded.tensors[0].shape[1:])

    dense = trimmed_network(spec, None, input_size) or load_model(
        spec, input_size=input_size, shape_of_data=shape_of_plan if recorded is not None else None
    )
    small = load(run, dense.model, plugins=plugins or None)
    if recorded is None or input_size is not None:
        return small, Inputs(dense.example_inputs()), report.settings.get("model", spec)
    return small, recorded, report.settings.get("model", spec)


def channels_of(spec: str) -> Path | None:
    """Where a search of what a trim left belongs, so that one folder holds all of it; `None` for other models."""
    from nasprune.supernet.folders import CHANNELS

    return Path(spec) / CHANNELS if _is_trimmed(Path(spec)) else None


def trimmed_network(spec: str, weights: str | None, input_size: str | None) -> LoadedModel | None:
    """What `nasprune trim` left in the folder that `spec` names; `None` where it names none.

    Raises:
        InputError: weights or an input size are given too, or what is there is damaged or built by no space.
    """
    folder = Path(spec)
    if not _is_trimmed(folder):
        return None
    from nasprune.models.loading import LoadedModel
    from nasprune.supernet.saved import ARCHITECTURE, ArchitectureFile, SupernetFile
    from nasprune.supernet.storage import load_architecture, load_supernet

    if weights is not None or input_size is not None:
        raise InputError(f"{spec!r} has weights and an input size of its own; leave out --weights and --input-size")
    if not (folder / ARCHITECTURE).exists():
        shape = SupernetFile.read(folder).input_shape
        return LoadedModel(folder.name, spec, load_supernet(folder).net, shape[1:], False, spec)
    size = ArchitectureFile.read(folder).size
    if size is None:
        raise InputError(
            f"{spec!r} names no space to build its network from; search it in Python, "
            "nasprune.search(nasprune.load(folder, model=the_supernet), ...)"
        )
    return LoadedModel(folder.name, spec, load_architecture(folder), size.input_shape[1:], False, spec)


def _check_run(folder: Path) -> None:
    """Raises InputError where nothing of a run is in the folder; says what is there, and what makes one."""
    from nasprune.run.checkpoint import PLAN, REPORT
    from nasprune.run.recorded import FILE

    if any((folder / name).exists() for name in (PLAN, REPORT)):
        return
    if inside := [str(path) for path in runs_in(folder)]:
        raise InputError(f"{str(folder)!r} holds the runs {', '.join(inside)}; give one of them")
    if (folder / FILE).exists():
        raise InputError(f"the search in {str(folder)!r} has not ended; repeat its command, and it goes on")
    raise InputError(
        f"{str(folder)!r} is no folder of a run; `nasprune search --budget 50% --out {shell_path(folder)}` makes one"
    )


def _is_trimmed(folder: Path) -> bool:
    from nasprune.supernet.saved import ARCHITECTURE, SUPERNET

    return folder.is_dir() and any((folder / name).is_file() for name in (ARCHITECTURE, SUPERNET))
