"""`nasprune show`: the result of a run again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from nasprune.cli import sweep
from nasprune.cli.compress import FILE, show_sizes, size_record
from nasprune.cli.runs import TUNED, accuracies, report_of, runs_in, tuned_in
from nasprune.cli.screen import answer, printed, stdout, table
from nasprune.cli.search import show
from nasprune.cost.units import percent
from nasprune.run.report import SearchReport


def run(folder: Path) -> None:
    """Prints the result in the folder, of a search, a fine-tuning or a trim; of a sweep, the results side by side."""
    from nasprune.codec.compressed import sizes_in
    from nasprune.run.checkpoint import PAGE, REPORT
    from nasprune.supernet.saved import ARCHITECTURE, SUPERNET

    if any((folder / name).is_file() for name in (SUPERNET, ARCHITECTURE)):
        _show_page(folder, PAGE, REPORT)
        return
    if runs := runs_in(folder):
        sweep.show(folder, runs)
        return
    report = report_of(folder)
    small = folder / FILE
    sizes = sizes_in(small) if small.is_file() else None
    tuned = tuned_in(folder)
    answer(
        {
            "folder": str(folder),
            "report": asdict(report),
            **({"finetuned": tuned_record(folder / TUNED, tuned)} if tuned is not None else {}),
            **({"compressed": size_record(sizes)} if sizes is not None else {}),
        }
    )
    show(report, folder)
    show_accuracies(report)
    if sizes is not None:
        show_sizes(sizes)


def tuned_record(folder: Path, report: SearchReport) -> dict[str, object]:
    """A fine-tuned network for JSON."""
    return {"folder": str(folder), "accuracy": accuracies(report), "report": asdict(report)}


def show_accuracies(report: SearchReport) -> None:
    """A table of them, where there is a trained network."""
    rows = accuracies(report)
    if "fine-tuned" in rows:
        console = stdout()
        console.print()
        console.print(table(("net", "accuracy"), [(name, percent(value)) for name, value in rows.items()], right=(1,)))


def _show_page(folder: Path, page: str, report: str) -> None:
    """A trimmed supernet or its network: the page that was written for people."""
    from nasprune.common.fields import LARGEST
    from nasprune.common.files import content_of

    then = "give a folder that nasprune search, finetune or trim wrote"
    record = json.loads(content_of(folder / report, "the report", then, most=LARGEST))
    answer({"folder": str(folder), "report": record})
    printed(
        stdout(), *content_of(folder / page, "the report", then, most=LARGEST).decode(errors="replace").splitlines()
    )
