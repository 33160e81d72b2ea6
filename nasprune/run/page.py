"""A search report as one HTML page: nothing is fetched, light and dark as the reader has it."""

from __future__ import annotations

from collections.abc import Sequence

from nasprune.common.html import bar, code, folded, in_notebook, items, page, prose, table, text
from nasprune.common.memory import written
from nasprune.common.words import shell_path
from nasprune.cost.units import number_of, percent, short
from nasprune.run import charts
from nasprune.run.charts import LAYERS, Chart, Harms
from nasprune.run.layer_times import HEAD, SHOWN, TITLE, WORDS, time_rows
from nasprune.run.notes import said_once
from nasprune.run.report import SearchReport
from nasprune.run.reporting import loading_lines, zeros_rows
from nasprune.run.rungs import ACCURACY, CUT, DENSE, by_net, heading, nets_of
from nasprune.run.rungs import NETS as NETS
from nasprune.run.rungs import cell as measured_cell
from nasprune.space.trials import Trial

FROM_THE_SHELL = "weights from"
"""A setting that only the command line gives."""
LATENCY = "latency_ms"
OPEN = 3
"""Notes that are read without a click."""


def html(report: SearchReport, *, folder: str, trials: Sequence[Trial] = (), harms: Harms | None = None) -> str:
    """The page.

    Args:
        folder: where it is saved, for the lines that load it and make it again.
        trials, harms: of the search, for charts; without them there are none.
    """
    found = charts.charts(report, trials, harms or {})
    drawn = found if charts.available() else []
    title = f"{report.settings.get('model', 'model')} within {report.budget}"
    parts = [
        f"<h1>{text(title)}</h1>",
        f'<p class="soft">{text(_made(report))}</p>',
        _reached(report),
        *_notes(report),
        "<h2>Side by side</h2>",
        side_by_side(report),
        '<p class="soft">At batch 1; one FLOP is one multiply-add.</p>',
        *_left_out(report),
        *(part for chart in drawn if chart.name != LAYERS for part in charts.place(chart)),
        *([f'<p class="soft">{text(charts.MISSING)}</p>'] if found and not drawn else []),
        *_front(report),
        "<h2>What stays</h2>",
        widths(report),
        *_zeros(report),
        *_removed(report),
        *_layers(report, drawn),
        *_frozen(report),
        "<h2>Proof</h2>",
        f"<p>{text(_proof(report))}</p>",
        *_took(report),
        "<h2>Load it</h2>",
        f"<pre>{'<br>'.join(text(line) for line in _loading(report, folder))}</pre>",
        "<h2>Make it again</h2>",
        _again(report, folder),
        folded("Settings and versions", _settings(report)),
    ]
    return page(title, parts, charts.script(drawn))


def cell(report: SearchReport) -> str:
    """The report for a notebook: what was reached, networks side by side, and what stays when it is unfolded."""
    title = f"{report.settings.get('model', 'model')} within {report.budget}"
    verdict = "proved" if report.proof.ok else f"not proved: {report.proof.reason}"
    removed = f"<p>Blocks removed: {', '.join(map(code, report.dropped_blocks))}</p>" if report.dropped_blocks else ""
    return in_notebook(
        [
            f"<p><b>{text(title)}</b>: {text(_made(report))}; {text(verdict)}</p>",
            side_by_side(report),
            removed,
            folded("What stays of each group", widths(report)),
            *([folded("Notes", items(map(prose, said_once(report.notes))))] if report.notes else []),
        ]
    )


def side_by_side(report: SearchReport) -> str:
    """Costs and measurements of each network there is: dense, cut alone, refitted, polished, fine-tuned."""
    nets = nets_of(report)
    rows = []
    for label, dense, cut in (
        ("FLOPs", report.dense.flops, report.cut.flops),
        ("parameters", report.dense.params, report.cut.params),
        ("activations", report.dense.activations, report.cut.activations),
        *([("not zero (NNZ)", report.sparsity.dense, report.sparsity.cut)] if report.sparsity else []),
    ):
        values = [dense if net == DENSE else cut for net in nets]
        rows.append((label, *(short(value) for value in values), percent(cut / dense) if dense else ""))
    for quantity, found in by_net(report).items():
        share = ""
        if quantity == LATENCY and found.get(DENSE) and CUT in found:
            share = percent(found[CUT] / found[DENSE])
        cells = [measured_cell(quantity, found.get(net)) for net in nets]
        rows.append((text(f"{report.latency_label}, ms" if quantity == LATENCY else quantity), *cells, share))
    head = ("", *(heading(report, net) for net in nets), "kept")
    return table(head, rows, numbers=range(1, len(head)))


def widths(report: SearchReport) -> str:
    """Every group that could be cut, before and after."""
    rows = [
        (
            code(group.name),
            str(group.width),
            str(group.kept),
            bar(group.kept / group.width),
            percent(group.kept / group.width) if group.kept else "went with its block",
        )
        for group in report.groups
        if group.frozen_because is None
    ]
    if not rows:
        return "<p>No group of channels could be cut.</p>"
    return table(("group", "before", "after", "", "kept"), rows, numbers=(1, 2))


def _zeros(report: SearchReport) -> list[str]:
    """Layers with zeros in their weights."""
    if report.sparsity is None:
        return []
    rows = [
        (code(layer.layer), f"{layer.size:,}", f"{layer.kept:,}", bar(layer.kept / layer.size), share)
        for layer, (*_, share) in zip(report.sparsity.layers, zeros_rows(report.sparsity), strict=True)
    ]
    head = ("layer", "weights", "not zero", "", "kept")
    said = f"<p>{report.proof.zeros:,} weights are exactly zero, in dense tensors.</p>"
    return ["<h2>Zeros inside of weights</h2>", said, table(head, rows, numbers=(1, 2))]


def _made(report: SearchReport) -> str:
    names = ("data", "strategy", "controller", "evaluator", "criterion", "reconstruct")
    words = [f"{name} {report.settings[name]}" for name in names if name in report.settings]
    return ", ".join([f"{number_of(report.trials, 'trial')} in {report.seconds:.0f} s", *words])


def _reached(report: SearchReport) -> str:
    """What was asked for and what came of it, large."""
    cells = [("asked", report.budget)]
    for label, dense, cut in (
        ("of the FLOPs", report.dense.flops, report.cut.flops),
        ("of the parameters", report.dense.params, report.cut.params),
        *([("of what is not zero", report.sparsity.dense, report.sparsity.cut)] if report.sparsity else []),
    ):
        if dense:
            cells.append((label, percent(cut / dense)))
    measured = by_net(report)
    latency = measured.get(LATENCY, {})
    if latency.get(DENSE) and CUT in latency:
        cells.append(("of the latency", percent(latency[CUT] / latency[DENSE])))
    accuracies = [quantity for quantity in measured if "accuracy" in quantity]
    for quantity in sorted(accuracies, key=lambda name: name == ACCURACY)[:1]:  # on test images, where there is one
        best = next(net for net in reversed(NETS) if net in measured[quantity])
        cells.append((f"{quantity}, {best}", percent(measured[quantity][best])))
    boxes = "".join(f"<div><b>{text(value)}</b>{text(label)}</div>" for label, value in cells)
    return f'<div class="big">{boxes}</div>'


def _notes(report: SearchReport) -> list[str]:
    """The first of them, and the others folded."""
    notes = [prose(note) for note in said_once(report.notes)]
    shown, others = notes[:OPEN], notes[OPEN:]
    return [items(shown)] * bool(shown) + [folded(number_of(len(others), "more note"), items(others))] * bool(others)


def _left_out(report: SearchReport) -> list[str]:
    others = {name: value for name, value in report.measured.items() if name.rpartition(" ")[2] not in NETS}
    rows = [(text(name), f"{value:.4g}") for name, value in others.items()]
    parts = [table(("also measured", ""), rows, numbers=(1,))] if rows else []
    if report.uncounted:
        left = [
            (text(str(item.operator)), "by convention" if item.by_convention else "no formula", percent(item.share))
            for item in report.uncounted
        ]
        inner = table(("what", "why", "time"), left, numbers=(2,))
        parts.append(folded("What FLOPs leave out of the dense network's time", inner))
    return parts


def _front(report: SearchReport) -> list[str]:
    if len(report.front) < 2:
        return []
    rows = [
        (str(point.trial), short(point.cost.flops), short(point.cost.params), f"{point.score:.6g}")
        for point in report.front
    ]
    head = ("trial", "FLOPs", "parameters", "score")
    return [folded("Trials that no other beats in both FLOPs and score", table(head, rows, numbers=range(4)))]


def _removed(report: SearchReport) -> list[str]:
    if not report.dropped_blocks:
        return ["<p>No block was removed.</p>"]
    return ["<h2>Blocks removed</h2>", items(code(name) for name in report.dropped_blocks)]


def _layers(report: SearchReport, drawn: Sequence[Chart]) -> list[str]:
    """The chart, where it is drawn, and the numbers."""
    rows = [
        (code(name) if number < SHOWN else text(name), *rest)
        for number, (name, *rest) in enumerate(time_rows(report.layers))
    ]
    if not rows:
        return []
    shown = table(HEAD, rows, numbers=(1, 2, 3))
    if found := [chart for chart in drawn if chart.name == LAYERS]:
        return [*charts.place(found[0]), folded("As numbers", shown)]
    return [f"<h2>{text(TITLE)}</h2>", shown, f'<p class="soft">{text(WORDS)}</p>']


def _frozen(report: SearchReport) -> list[str]:
    reasons = {group.name: group.frozen_because for group in report.groups if group.frozen_because is not None}
    reasons |= report.proof.frozen
    if not reasons:
        return []
    rows = [(code(name), prose(str(why))) for name, why in reasons.items()]
    return ["<h2>Left whole</h2>", table(("group or block", "why"), rows)]


def _proof(report: SearchReport) -> str:
    proof = report.proof
    return (
        f"{'The cut is proved' if proof.ok else 'The cut is not proved'}: with what was removed masked, the dense "
        f"network and the cut one differ by {proof.max_error:.1e} of the largest output in {proof.dtype} (allowed "
        f"{proof.tolerance:.0e}). {proof.flops:,} FLOPs were counted on it, {proof.predicted_flops:,} predicted."
    )


def _took(report: SearchReport) -> list[str]:
    rows = [(text(cost.phase), f"{cost.seconds:.1f} s", written(cost.memory)) for cost in report.phases]
    return [folded("What each phase took", table(("phase", "time", "memory by then"), rows, numbers=(1, 2)))] * bool(
        rows
    )


def _loading(report: SearchReport, folder: str) -> list[str]:
    return ["import nasprune", *loading_lines(report.settings.get("model", ""), folder)]


def _again(report: SearchReport, folder: str) -> str:
    if FROM_THE_SHELL not in report.settings:
        return "<p>It was made from Python, with the settings below.</p>"
    nets = {name.rpartition(" ")[2] for name in report.measured if "accuracy" in name}
    command = "finetune" if {"cut", "fine-tuned"} <= nets else "search"  # a strategy's cut is the trained network
    return f"<pre>{text(f'nasprune {command} --config {shell_path(folder)}/run.toml --out again')}</pre>"


def _settings(report: SearchReport) -> str:
    settings = [(text(name), code(value)) for name, value in sorted(report.settings.items())]
    versions = [(text(name), text(value)) for name, value in sorted(report.versions.items())]
    return table(("setting", "value"), settings) + (table(("package", "version"), versions) if versions else "")
