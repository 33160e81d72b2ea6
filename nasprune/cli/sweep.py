"""`nasprune search --sweep`: one model within several budgets, a folder for each, and one page and table of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.cli import compare, config, search
from nasprune.cli.interrupts import INTERRUPTS, writing
from nasprune.cli.next_steps import export_line
from nasprune.cli.screen import printed, say, stdout
from nasprune.cli.search import SearchOptions
from nasprune.common.words import shell_path
from nasprune.cost.units import percent, short
from nasprune.errors import InputError

if TYPE_CHECKING:
    from nasprune.run.report import SearchReport

PAGE = "sweep.html"


def run(options: SearchOptions) -> None:
    """Checks all, loads once, searches one after the other, and prints them side by side."""
    from nasprune.common.files import write_all
    from nasprune.run.sharing import Shared
    from nasprune.run.sweep_page import html

    parts, out = _parts(options)
    for part in parts:
        search.checked(part)
    loaded, data = search.load(options)
    shared, reports = Shared(several=True), dict[str, "SearchReport"]()
    for number, part in enumerate(parts, start=1):
        if INTERRUPTS.asked:
            break
        say(f"sweep {number}/{len(parts)}: {part.budget}")
        report, folder = search.found(part, loaded, data, shared, announced=number > 1)
        reports[folder.name] = report
        say(
            f"{part.budget}: {percent(report.cut.flops / max(report.dense.flops, 1))} of the FLOPs, "
            f"{short(report.cut.params, 'params')}, score {report.score:.4f}, in {folder}/"
        )
    with writing(out, (PAGE, config.FILE)):
        write_all(out, {PAGE: html(reports).encode(errors="backslashreplace")})
        config.keep(out, "search", options, {"out": out})
    show(out, [out / name for name in reports])


def show(out: Path, runs: Sequence[Path]) -> None:
    """The runs side by side, the page of the sweep in the folder, and what to type next."""
    rows = compare.run(runs)
    page = [f"files    {out}/: {PAGE}, and the folder of a run for each budget"] if (out / PAGE).is_file() else []
    smallest = rows[0]
    printed(
        stdout(),
        "",
        *page,
        f"show     nasprune show {shell_path(smallest.folder)}",
        f"export   {export_line(smallest.model, Path(smallest.folder))}",
    )


def _parts(options: SearchOptions) -> tuple[list[SearchOptions], Path]:
    """The searches, and the folder that holds their folders."""
    from nasprune.run.sweep import distinct, folder_name

    if options.budget is not None:
        raise InputError("--budget and --sweep both give budgets; give one of them")
    budgets = distinct([part.strip() for part in str(options.sweep).split(",") if part.strip()])
    out = options.out or search.default_folder(options.model, "sweep")
    return [replace(options, budget=budget, sweep=None, out=out / folder_name(budget)) for budget in budgets], out
