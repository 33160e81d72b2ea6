"""Several results of one model as one HTML page: cost against score and accuracy, and links to the pages of each."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from nasprune.common.html import page, table, text
from nasprune.cost.units import percent, short
from nasprune.run import charts
from nasprune.run.charts import Chart
from nasprune.run.report import SearchReport

ACCURACIES = ("test accuracy", "accuracy on seen images")


def html(reports: Mapping[str, SearchReport]) -> str:
    """The page. reports: folder beside the page -> the report of the run in it."""
    first = next(iter(reports.values()))
    found = [chart for chart in (_scores(reports), _accuracies(reports)) if chart is not None]
    drawn = found if charts.available() else []
    title = f"{first.settings.get('model', 'model')} within {len(reports)} budgets"
    rows = [_row(folder, report) for folder, report in reports.items()]
    head = ("budget", "FLOPs", "kept", "parameters", "kept", "latency, ms", "score", "test accuracy", "blocks removed")
    dense = f"The dense network: {short(first.dense.flops, 'FLOPs')}, {short(first.dense.params, 'params')}"
    dense += f", score {first.dense_score:.4f}." if first.dense_score is not None else "."
    parts = [
        f"<h1>{text(title)}</h1>",
        f'<p class="soft">{text(dense)}</p>',
        table(head, rows, numbers=range(1, len(head))),
        *(part for chart in drawn for part in charts.place(chart)),
        *([f'<p class="soft">{text(charts.MISSING)}</p>'] if not drawn else []),
    ]
    return page(title, parts, charts.script(drawn))


def _row(folder: str, report: SearchReport) -> tuple[str, ...]:
    latency = report.measured.get("latency_ms cut")
    accuracy = next((report.measured[f"{name} cut"] for name in ACCURACIES if f"{name} cut" in report.measured), None)
    return (
        f'<a href="{quote(folder)}/report.html">{text(report.budget)}</a>',
        short(report.cut.flops),
        percent(report.cut.flops / report.dense.flops) if report.dense.flops else "",
        short(report.cut.params),
        percent(report.cut.params / report.dense.params) if report.dense.params else "",
        f"{latency:.4g}" if latency is not None else "",
        f"{report.score:.4f}",
        percent(accuracy) if accuracy is not None else "",
        str(len(report.dropped_blocks)),
    )


def _scores(reports: Mapping[str, SearchReport]) -> Chart | None:
    first = next(iter(reports.values()))
    rows = [_point(report, report.score, "cut") for report in reports.values()]
    if first.dense_score is not None:
        rows.append(_point(first, first.dense_score, "dense"))
    return _chart("scores", "Cost against score", "score", rows)


def _accuracies(reports: Mapping[str, SearchReport]) -> Chart | None:
    rows = []
    for name in ACCURACIES:
        for number, report in enumerate(reports.values()):
            for net in ("cut", *(("dense",) if number == 0 else ())):
                value = report.measured.get(f"{name} {net}")
                if value is not None:
                    rows.append(_point(report, value, net))
    return _chart("accuracies", "Cost against accuracy before training", "accuracy", rows) if rows else None


def _point(report: SearchReport, value: float, net: str) -> dict[str, object]:
    flops = report.dense.flops if net == "dense" else report.cut.flops
    return {"FLOPs": flops, "value": value, "budget": report.budget if net == "cut" else "", "network": net}


def _chart(name: str, title: str, quantity: str, rows: list[dict[str, object]]) -> Chart:
    scale = {"zero": False, "padding": 24}
    x = {"field": "FLOPs", "type": "quantitative", "axis": {"format": "~s"}, "scale": scale}
    y = {"field": "value", "type": "quantitative", "title": quantity, "scale": scale}
    line = {"mark": {"type": "line", "strokeDash": [4, 3]}, "encoding": {"x": x, "y": y, "color": {"value": "gray"}}}
    points = {
        "mark": {"type": "point", "filled": True, "size": 90},
        "encoding": {
            "x": x,
            "y": y,
            "color": {"field": "network", "type": "nominal", "scale": {"domain": ["cut", "dense"]}, **charts.LEGEND},
            "tooltip": [{"field": "network"}, {"field": "budget"}, *charts.numbers("FLOPs"), {"field": "value"}],
        },
    }
    costs = [row["FLOPs"] for row in rows if isinstance(row["FLOPs"], (int, float))]
    middle = (min(costs) + max(costs)) / 2
    labels = [  # away from the axis, and from a line that rises
        {
            "transform": [{"filter": f"datum.FLOPs {side} {middle}"}],
            "mark": {"type": "text", "align": align, "dx": dx, "dy": dy, "color": "gray"},
            "encoding": {"x": x, "y": y, "text": {"field": "budget"}},
        }
        for side, align, dx, dy in (("<=", "left", 9, 11), (">", "right", -9, -9))
    ]
    return Chart(name, title, "", charts.spec(rows, [line, points, *labels], 300))
