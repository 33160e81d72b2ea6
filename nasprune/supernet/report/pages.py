"""The report of a trimmed supernet for people: a markdown page, and lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nasprune.cost.units import percent, short
from nasprune.supernet.price.counting import Counts
from nasprune.supernet.report.comparison import Row
from nasprune.supernet.report.health import Check, TrimReport

ROW_HEAD = ("scorer", "candidates", "in common", "FLOPs", "MACs", "accuracy", "batch norm anew")


def markdown(report: TrimReport) -> str:
    """The report as one markdown page."""
    parts = [
        f"# Network picked within {report.budget}"
        if _is_network(report)
        else f"# Supernet trimmed to {_budget(report)}",
        summary(report),
        *(["## Warnings", _list(check.sentence for check in report.warnings)] if report.warnings else []),
        *(["## Notes", _list(report.notes)] if report.notes else []),
        "## Cost",
        _table(("", "before", "after", "kept"), cost_rows(report)) + "\n\nFor one item; one FLOP is one multiply-add.",
        "## Beside the baselines",
        _table(ROW_HEAD, [row_cells(row) for row in report.rows]),
        "Accuracy is on the validation images, before any training after the cut; of three of the random selections. A "
        "scorer that is no better than `flops_order` and `random` at the same FLOPs has shown nothing.",
        *([f"{str(report.standing).capitalize()}."] if report.standing else []),
        "## Checks",
        _table(("check", "value", "", "what it says"), [_check_cells(check) for check in report.checks]),
        "## What stays",
        _table(("choice", "stays", "goes"), kept_rows(report)),
        "## How it was made",
        _table(("setting", "value"), [(name, f"`{value}`") for name, value in sorted(report.settings.items())]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(report: TrimReport) -> str:
    """One sentence."""
    before = sum(len(scores) for scores in report.scores.values())
    after = sum(len(ops) for ops in report.kept.values())
    share = report.after.fvcore / max(report.before.fvcore, 1)
    return (
        f"{after} of {before} candidates stay in {len(report.kept)} choices: {short(report.after.fvcore, 'FLOPs')}, "
        f"{percent(share)} of {short(report.before.fvcore, 'FLOPs')}, in {report.seconds:.1f} s."
    )


def lines(report: TrimReport) -> list[str]:
    """For a terminal: the sentence, warnings, notes."""
    return [
        summary(report),
        *([f"note: {report.standing}"] if report.standing else []),
        *(f"warning: {check.sentence}" for check in report.warnings),
        *(f"note: {note}" for note in report.notes),
    ]


def cost_rows(report: TrimReport) -> list[tuple[str, str, str, str]]:
    """Quantity, before, after, share kept."""
    before, after = report.before, report.after
    labels = {"FLOPs (fvcore)": "fvcore", "MACs (convolutions and products)": "macs", "parameters": "params"}
    return [(label, *_pair(before, after, counter)) for label, counter in labels.items()]


def row_cells(row: Row) -> tuple[str, ...]:
    """One scorer, under `ROW_HEAD`."""
    name = row.scorer if row.draws == 1 else f"{row.scorer} (mean of {row.draws})"
    return (
        name,
        f"{row.candidates:.4g}",
        percent(row.overlap),
        short(row.fvcore),
        short(row.macs),
        _share(row.accuracy),
        _share(row.reestimated),
    )


def kept_rows(report: TrimReport) -> list[tuple[str, str, str]]:
    """Choice, what stays, what goes: both with the best scores first."""
    rows = []
    for name, scores in report.scores.items():
        order = sorted(scores, key=lambda op: -scores[op])
        kept = report.kept.get(name, ())
        rows.append(
            (f"`{name}`", _ops([op for op in order if op in kept]), _ops([op for op in order if op not in kept]))
        )
    return rows


def _pair(before: Counts, after: Counts, counter: str) -> tuple[str, str, str]:
    one, other = getattr(before, counter), getattr(after, counter)
    return short(one), short(other), percent(other / one) if one else ""


def _is_network(report: TrimReport) -> bool:
    return report.settings.get("discretise") == "True"


def _budget(report: TrimReport) -> str:
    return report.budget if report.budget != "none" else report.settings.get("schedule", "fewer candidates")


def _check_cells(check: Check) -> tuple[str, ...]:
    verdict = "**warn**" if check.verdict == "warn" else "ok"
    return check.name, f"{check.value:.3f}", verdict, check.sentence


def _share(value: float | None) -> str:
    return percent(value) if value is not None else "–"


def _ops(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "–"


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    every = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in every)
