"""`nasprune compare`: several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nasprune.cli.runs import accuracies, report_of, runs_in, tuned_in
from nasprune.cli.screen import answer, printed, stdout, table
from nasprune.common.arguments import path as as_path
from nasprune.cost.budget import Cost
from nasprune.cost.units import percent, short
from nasprune.errors import InputError
from nasprune.run.report import SearchReport

COMPARED = ("dense", "cut", "fine-tuned")


@dataclass(frozen=True)
class ComparedRun:
    """One run of several. accuracy: by net, see `accuracies`; that of a fine-tuning in its folder among them."""

    folder: str
    model: str
    budget: str
    dense: Cost
    cut: Cost
    latency_ms: tuple[float, float] | None
    evaluator: str
    score: float
    dense_score: float | None
    accuracy: dict[str, float]
    seconds: float


def run(folders: Sequence[Path]) -> list[ComparedRun]:
    """Prints one line a run, the smaller costs first, and gives them. Of the folder of a sweep all runs are taken."""
    rows = compare(*folders)
    answer({"runs": [asdict(row) for row in rows]})
    console = stdout()
    head = ("run", "budget", "FLOPs", "kept", "parameters", "kept", "latency", "score", "accuracy", "seconds")
    console.print(table(head, [_cells(row) for row in rows], right=range(2, len(head))))
    if any(row.accuracy for row in rows):
        printed(console, "", "Accuracy is of the dense, the cut and the fine-tuned net, as far as it was measured.")
    if len({row.model for row in rows}) > 1:
        printed(console, "", f"They are of several models: {', '.join(sorted({row.model for row in rows}))}.")
    if len({row.evaluator for row in rows}) > 1:
        printed(console, "", "Their scores are of several evaluators, and do not compare.")
    return rows


def compare(*folders: str | Path) -> list[ComparedRun]:
    """Costs, score and accuracies of runs, the smaller costs first; of the folder of a sweep all runs are taken.

    Raises:
        InputError: no folder, or one that is of no run.
    """
    if not folders:
        raise InputError("give the folders of two runs or more, as nasprune search wrote them")
    paths = [as_path("folders", folder, "give folders of runs, such as 'runs/mine'") for folder in folders]
    runs = [run for path in paths for run in runs_in(path) or [path]]
    return sorted((_row(folder, report_of(folder)) for folder in runs), key=lambda row: row.cut.flops)


def _row(folder: Path, report: SearchReport) -> ComparedRun:
    tuned = tuned_in(folder)
    more = accuracies(tuned) if tuned is not None else {}
    times = [report.measured.get(f"latency_ms {net}") for net in ("dense", "cut")]
    return ComparedRun(
        folder=str(folder),
        model=report.settings.get("model", "model"),
        budget=report.budget,
        dense=report.dense,
        cut=report.cut,
        latency_ms=(times[0], times[1]) if times[0] is not None and times[1] is not None else None,
        evaluator=report.settings.get("evaluator", ""),
        score=report.score,
        dense_score=report.dense_score,
        accuracy={net: value for net, value in (accuracies(report) | more).items() if net in COMPARED},
        seconds=report.seconds,
    )


def _cells(row: ComparedRun) -> tuple[str, ...]:
    return (
        row.folder,
        row.budget,
        short(row.cut.flops),
        percent(row.cut.flops / row.dense.flops) if row.dense.flops else "",
        short(row.cut.params),
        percent(row.cut.params / row.dense.params) if row.dense.params else "",
        f"{row.latency_ms[1]:.4g} of {row.latency_ms[0]:.4g} ms" if row.latency_ms is not None else "",
        f"{row.score:.4f}",
        " → ".join(percent(value) for value in row.accuracy.values()),
        f"{row.seconds:.0f}",
    )
