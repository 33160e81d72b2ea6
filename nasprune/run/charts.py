"""The charts of a report in Vega-Lite, and the script that draws them in the page, without a network.

Satyanarayan, Moritz, Wongsuphasawat, Heer 2017, "Vega-Lite: a grammar of interactive graphics". The script is that of
the package vl-convert-python; without it a page has tables only, and says so.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nasprune.common.files import write_all
from nasprune.common.html import text
from nasprune.errors import InputError
from nasprune.run.layer_times import SHOWN, TITLE, WORDS
from nasprune.run.report import SearchReport
from nasprune.space.trials import Trial

MISSING = "Charts are drawn where vl-convert-python is installed: pip install 'nasprune[plots]'."
MOST_TRIALS = 5_000
WIDTH = 860
"""Pixels of a chart with all that stands around it, where it stands alone; in a page it is as wide as the text."""
DECADES = 1e5
"""The largest harm on the axis over the smallest."""
Spec = dict[str, Any]
Harms = Mapping[str, Mapping[int, float]]
COLORS = [
    *("#4e94f0", "#f28e2b", "#2fa56f", "#e15759", "#a678de", "#c09a3e", "#e377a8", "#1fa8b8", "#8a8f98", "#8fae2f"),
    *("#2c62b8", "#b8560f", "#14774b", "#a83238", "#6f46a8", "#7d6320", "#a8457a", "#127481", "#565b63", "#5e7a10"),
]
"""Told from light and from dark, and a group from its neighbours."""
LABEL = 260
"""Pixels of a name beside an axis."""
LAYERS = "layers"
RESULT, FRONT, OTHERS = "the result", "on the front", "other trials"
LEGEND: Spec = {"title": None, "legend": {"orient": "top"}}
DRAW = """
const specs = JSON.parse(document.getElementById("charts").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
function draw() {
  const style = getComputedStyle(document.documentElement);
  const get = name => style.getPropertyValue(name).trim();
  const text = get("--text"), soft = get("--soft"), line = get("--line");
  const axis = {labelColor: soft, titleColor: text, gridColor: line, domainColor: line, tickColor: line,
    labelFontSize: 12, titleFontSize: 12};
  const config = {background: "transparent", font: "system-ui, sans-serif", view: {stroke: "transparent"}, axis,
    axisQuantitative: {tickCount: 8}, legend: {labelColor: soft, titleColor: text, labelFontSize: 12},
    title: {color: text}, range: {category: [get("--accent"), dark.matches ? "#f2a65a" : "#c2570c", soft]}};
  for (const [name, spec] of Object.entries(specs))
    vegaEmbed(document.getElementById(name), {...spec, width: "container"}, {config, actions: false, renderer: "svg"});
}
draw();
dark.addEventListener("change", draw);
"""


@dataclass(frozen=True)
class Chart:
    """A chart and what stands around it. name: of its place in the page."""

    name: str
    title: str
    words: str
    spec: Spec


def available() -> bool:
    """Whether charts can be drawn."""
    return find_spec("vl_convert") is not None


@cache
def library() -> str:
    """The script of Vega, Vega-Lite and Vega-Embed; kept in the user's cache, since making it takes seconds."""
    import vl_convert

    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "nasprune"
    name = f"vega-{vl_convert.__version__}.js"
    with suppress(OSError, UnicodeDecodeError):
        return (folder / name).read_text(encoding="utf-8")
    made: str = vl_convert.javascript_bundle()
    with suppress(InputError):
        write_all(folder, {name: made.encode()})
    return made


def script(charts: Sequence[Chart]) -> str:
    """What draws the charts, to stand at the end of the page."""
    if not charts:
        return ""
    specs = json.dumps({chart.name: chart.spec for chart in charts}).replace("<", "\\u003c")
    bundle = library().replace("</script", "<\\/script")
    return (
        f'<script type="application/json" id="charts">{specs}</script>\n'
        f'<script type="module">{bundle}\n{DRAW}</script>\n'
    )


def place(chart: Chart) -> list[str]:
    """Where it is drawn, as parts of the page."""
    words = [f"<p>{text(chart.words)}</p>"] if chart.words else []
    return [f"<h2>{text(chart.title)}</h2>", *words, f'<div class="chart"><div id="{chart.name}"></div></div>']


def charts(report: SearchReport, trials: Sequence[Trial], harms: Harms) -> list[Chart]:
    """The charts that there is something to draw for."""
    found = [_trials(report, trials), _curves(report, harms), _blocks(report, harms), _layers(report)]
    return [chart for chart in found if chart is not None]


def _trials(report: SearchReport, trials: Sequence[Trial]) -> Chart | None:
    """Cost against score, and the front."""
    if len({trial.decision.digest for trial in trials}) < 3:
        return None
    front = {point.trial for point in report.front}
    result = next((t.index for t in trials if t.cost == report.cut and t.score == report.score), None)
    rows = [
        {
            "FLOPs": trial.cost.flops,
            "parameters": trial.cost.params,
            "score": trial.score,
            "trial": trial.index,
            "which": RESULT if trial.index == result else FRONT if trial.index in front else OTHERS,
            "front": trial.index in front,
        }
        for trial in trials
        if trial.index < MOST_TRIALS or trial.index in front or trial.index == result
    ]
    rows.sort(key=lambda row: (OTHERS, FRONT, RESULT).index(str(row["which"])))  # what is drawn last lies above
    which = {
        "field": "which",
        "type": "nominal",
        "scale": {"domain": [RESULT, FRONT, OTHERS]},
        **LEGEND,
    }
    x = {"field": "FLOPs", "type": "quantitative", "scale": {"zero": False}, "axis": {"format": "~s"}}
    y = {"field": "score", "type": "quantitative", "scale": {"zero": False}}
    points = {
        "mark": {"type": "point", "filled": True},
        "encoding": {
            "x": x,
            "y": y,
            "color": which,
            "size": {"condition": {"test": f"datum.which == '{RESULT}'", "value": 140}, "value": 45},
            "opacity": {"condition": {"test": f"datum.which == '{OTHERS}'", "value": 0.45}, "value": 1},
            "tooltip": [{"field": "trial"}, *numbers("FLOPs", "parameters"), {"field": "score", "format": ".4g"}],
        },
    }
    line = {
        "transform": [{"filter": "datum.front"}],
        "mark": {"type": "line", "interpolate": "step-after", "strokeDash": [4, 3]},
        "encoding": {"x": x, "y": y, "color": {"value": "gray"}},
    }
    words = "A point is a trial; the line joins those that no other beats in both FLOPs and score. Hover for numbers."
    return Chart("trials", "Cost against score", words, spec(rows, [line, points], 320))


def _curves(report: SearchReport, harms: Harms) -> Chart | None:
    """Harm against width of every group, and where the result is."""
    kept = {group.name: group for group in report.groups}
    rows: list[dict[str, object]] = [
        {
            "group": name,
            "kept": option,
            "of": kept[name].width,
            "share": option / kept[name].width,
            "harm": harm,
            "chosen": option == kept[name].kept,
        }
        for name, options in harms.items()
        if name in kept
        for option, harm in sorted(options.items())
        if harm > 0  # the whole width has none, and the axis is logarithmic
    ]
    if not rows:
        return None
    x = {"field": "share", "type": "quantitative", "title": "share of the group that stays", "axis": {"format": "%"}}
    y = {"field": "harm", "type": "quantitative", "title": "estimated harm", **_logarithmic(rows)}
    hover = {"name": "group", "select": {"type": "point", "on": "pointerover", "fields": ["group"], "nearest": True}}
    color = _of_groups(list(dict.fromkeys(str(row["group"]) for row in rows)))
    lines = {
        "mark": {"type": "line"},
        "encoding": {
            "x": x,
            "y": y,
            "color": color,
            "opacity": {"condition": {"param": "group", "value": 1}, "value": 0.2},
            "size": {"condition": {"param": "group", "empty": False, "value": 3.5}, "value": 1.8},
        },
    }
    shown = [{"field": "group"}, {"field": "kept"}, {"field": "of"}, {"field": "harm", "format": ".3g"}]
    points = {
        "params": [hover],
        "mark": {"type": "point", "filled": True, "size": 30, "opacity": 0},
        "encoding": {"x": x, "y": y, "tooltip": shown},
    }
    chosen = {
        "transform": [{"filter": "datum.chosen"}],
        "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
        "encoding": {"x": x, "y": y, "color": color, "tooltip": shown},
    }
    words = (
        "What the outputs are estimated to lose when a group keeps fewer of its channels, a line each; the dots are "
        "the widths of the result. Hover for the name of a group."
    )
    return Chart("curves", "Harm against width", words, spec(rows, [lines, points, chosen], 380))


def _of_groups(names: Sequence[str]) -> Spec:
    """The colours of groups, in the order in which they run; more than a legend can hold have none."""
    few = len(names) <= len(COLORS)
    scale = {"domain": list(names), **({"range": COLORS[: len(names)]} if few else {"scheme": "sinebow"})}
    legend = {
        "title": None,
        "orient": "right",
        "labelLimit": LABEL // 2,
        "symbolType": "stroke",
        "symbolStrokeWidth": 3,
    }
    return {"field": "group", "type": "nominal", "scale": scale, "sort": None, "legend": legend if few else None}


def _logarithmic(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """A logarithmic axis of harms; those that are nothing beside the largest lie at its lower end."""
    most = max(float(row["harm"]) for row in rows)
    least = max(min(float(row["harm"]) for row in rows), most / DECADES)
    most = max(most, 2 * least)
    scale = {"type": "log", "nice": False, "clamp": True, "domain": [least, most]}
    decades = [10.0**power for power in range(math.ceil(math.log10(least)), math.floor(math.log10(most)) + 1)]
    lines = {"values": decades} if len(decades) > 1 else {"tickCount": 3}
    return {"scale": scale, "axis": {"format": "~g", **lines}}


def _blocks(report: SearchReport, harms: Harms) -> Chart | None:
    """The harm of every block that could be removed."""
    groups = {group.name for group in report.groups}
    rows: list[dict[str, object]] = [
        {"block": name, "harm": options[0], "which": "removed" if name in report.dropped_blocks else "kept"}
        for name, options in harms.items()
        if name not in groups and 0 in options
    ]
    if not rows:
        return None
    layer = {
        "mark": {"type": "bar"},
        "encoding": {
            "y": {"field": "block", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": LABEL}},
            "x": {
                "field": "harm",
                "type": "quantitative",
                "title": "estimated harm of removing it",
                "axis": {"format": "~g"},
            },
            "color": {
                "field": "which",
                "type": "nominal",
                "scale": {"domain": ["kept", "removed"]},
                **LEGEND,
            },
            "tooltip": [{"field": "block"}, {"field": "harm", "format": ".3g"}, {"field": "which"}],
        },
    }
    return Chart("blocks", "Harm of removing blocks", "", spec(rows, [layer], 16 * len(rows) + 20))


def _layers(report: SearchReport) -> Chart | None:
    """Milliseconds of the layers of the cut network that take most, dense and cut beside each other."""
    rows: list[dict[str, object]] = [
        {"layer": one.layer, "ms": ms, "network": net, "dense": one.dense_ms, "cut": one.cut_ms}
        for one in report.layers[:SHOWN]
        for net, ms in (("cut", one.cut_ms), ("dense", one.dense_ms))
    ]
    if not rows or not any(one.cut_ms for one in report.layers):
        return None
    networks = ["cut", "dense"]
    layer = {
        "mark": {"type": "bar"},
        "encoding": {
            "y": {"field": "layer", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": LABEL}},
            "yOffset": {"field": "network", "type": "nominal", "sort": networks},
            "x": {"field": "ms", "type": "quantitative", "title": "milliseconds", "axis": {"format": "~g"}},
            "color": {"field": "network", "type": "nominal", "scale": {"domain": networks}, **LEGEND},
            "tooltip": [{"field": "layer"}, *({"field": net, "format": ".3g"} for net in networks)],
        },
    }
    return Chart(LAYERS, TITLE, WORDS, spec(rows, [layer], 24 * len(rows) // 2 + 20))


def numbers(*names: str) -> list[Spec]:
    """Fields of large numbers in a tooltip."""
    return [{"field": name, "format": ".4s"} for name in names]


def spec(rows: Sequence[Mapping[str, object]], layers: Sequence[Spec], height: int) -> Spec:
    return {
        "data": {"values": list(rows)},
        "width": WIDTH,
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "layer": list(layers),
    }
