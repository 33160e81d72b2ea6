"""What stands below a result: the files of its folder, and what to type next."""

from __future__ import annotations

from pathlib import Path

from nasprune.cli import config
from nasprune.cli.runs import LIBRARIES
from nasprune.common.words import shell, shell_path
from nasprune.run.report import SearchReport
from nasprune.run.reporting import loading_lines


def files_line(folder: Path) -> str:
    """The files that are in the folder of a run, those for people and programs."""
    from nasprune.run.aim import FILE as TIMES
    from nasprune.run.checkpoint import HTML, PAGE, PLAN, REPORT, WEIGHTS
    from nasprune.run.recorded import FILE as RECORD

    names = (PLAN, WEIGHTS, HTML, PAGE, REPORT, RECORD, TIMES, config.FILE)
    return f"files    {folder}/: {', '.join(name for name in names if (folder / name).is_file())}"


def next_steps(report: SearchReport, folder: Path) -> list[str]:
    """The command that exports the network in the folder, and the Python that loads it."""
    spec = report.settings.get("model", "")
    return [
        f"export   {export_line(spec, folder)}",
        "",
        "Load it in Python:",
        "  import nasprune",
        *(f"  {line}" for line in loading_lines(spec, str(folder))),
    ]


def export_line(spec: str, folder: Path) -> str:
    """As it is to be typed for the network in the folder, which was made from the model that `spec` names."""
    own = [] if spec.partition(":")[0] in LIBRARIES else ["--model", shell(spec)]
    return " ".join(["nasprune export", shell_path(folder), "--format onnx", *own])
