"""A traced model as a picture: operations as boxes in the order of the data, in the colour of their channel group.

`page` is HTML with the picture, without a network and without a library for layouts: a row is the longest way from the
inputs, and boxes of a row stand side by side; a long picture is broken into strips beside each other. `dot` is the same
for Graphviz.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from nasprune.common import html
from nasprune.common.words import visible
from nasprune.graph.model import CoupledGroup, ModelGraph, OpNode

WIDE, HIGH, APART, ROW = 200, 30, 24, 50
PAGE, SHORT = 1000, 12
"""Pixels side by side, and rows below which the picture is not broken."""
GOLDEN = 137.508  # degrees between the colours of neighbours
SCRIPT = """<script type="module">
const boxes = [...document.querySelectorAll("g[data-group]")];
function light(group) {
  for (const box of boxes) box.classList.toggle("off", group !== null && box.dataset.group !== group);
}
for (const box of boxes) {
  box.addEventListener("pointerenter", () => light(box.dataset.group));
  box.addEventListener("pointerleave", () => light(null));
}
</script>
"""
STYLE = """<style>
svg.graph text { font: 12px ui-monospace, monospace; fill: var(--text); }
svg.graph .soft { fill: var(--soft); font-size: 10px; }
svg.graph path { fill: none; stroke: var(--soft); stroke-opacity: .55; }
svg.graph rect { stroke-width: 1.5; rx: 5; }
svg.graph g.frozen rect, svg.graph g.plain rect { fill: var(--panel); stroke: var(--soft); }
svg.graph g.frozen rect { stroke-dasharray: 4 3; }
svg.graph g.off { opacity: .25; }
</style>
"""


@dataclass(frozen=True)
class Box:
    """An operation. number: of the channel group that it gives, -1 for none, or for several."""

    op: OpNode
    number: int


def page(graph: ModelGraph, title: str) -> str:
    """The picture with what can be cut said in words."""
    boxes = _boxes(graph)
    free = f"{len(graph.free_groups)} of {len(graph.groups)} channel groups and {len(graph.free_blocks)} of "
    parts = [
        f"<h1>{html.text(title)}</h1>",
        f'<p class="soft">{free}{len(graph.blocks)} blocks can be cut. Boxes of one colour are one group; dashed ones '
        "are left whole, grey ones carry several groups or none. Hover for members and reasons.</p>",
        STYLE,
        f'<div class="wide">{_svg(graph, boxes)}</div>',
    ]
    if graph.skipped:
        rows = [(html.code(name), html.text(why)) for name, why in sorted(graph.skipped.items())]
        parts += ["<h2>Why operations freeze their channels</h2>", html.table(("operation", "why"), rows)]
    return html.page(title, parts, SCRIPT)


def dot(graph: ModelGraph) -> str:
    """The picture as a file for Graphviz."""
    lines = ["digraph model {", '  node [shape=box, style="rounded,filled", fontname="monospace"];']
    boxes = _boxes(graph)
    for box in boxes:
        group = graph.groups[box.number] if box.number >= 0 else None
        colour = f', fillcolor="{_hue(box.number) / 360:.3f} 0.25 1.0"' if group is not None and group.free else ""
        dashed = ', style="rounded,dashed"' if group is not None and not group.free else ""
        label, said = _quoted("\n".join(_label(box.op))), _quoted(_words(box, group))
        lines.append(f"  {_quoted(box.op.name)} [label={label}, tooltip={said}{colour}{dashed}];")
    shown = {box.op.name for box in boxes}
    for box in boxes:
        lines += [f"  {_quoted(name)} -> {_quoted(box.op.name)};" for name in box.op.inputs if name in shown]
    return "\n".join([*lines, "}"]) + "\n"


def _boxes(graph: ModelGraph) -> list[Box]:
    """The operations, without the parameters that they read."""
    held = {*graph.program.params, *graph.program.constants}
    return [Box(op, _group(graph, op.name)) for op in graph.ops if op.name not in held]


def _group(graph: ModelGraph, value: str) -> int:
    units = [along.units[along.units >= 0] for along in graph.values.get(value, ())]
    groups = {int(number) for found in units for number in np.unique(graph.unit_group[found])}
    return groups.pop() if len(groups) == 1 else -1


@dataclass(frozen=True)
class Place:
    """Where a box stands: column and row on the page, and its strip."""

    column: int
    row: int
    strip: int


def _places(boxes: Sequence[Box]) -> dict[str, Place]:
    """Operation -> its place."""
    rows: dict[str, int] = {}
    for box in boxes:
        rows[box.op.name] = 1 + max((rows[name] for name in box.op.inputs if name in rows), default=-1)
    taken: dict[int, int] = {}
    columns: dict[str, int] = {}
    for name, row in rows.items():
        columns[name] = taken.get(row, 0)
        taken[row] = columns[name] + 1
    high = _height(taken)
    wide = [max(taken[row] for row in taken if row // high == strip) for strip in range(-(-len(taken) // high))]
    return {
        name: Place(sum(wide[: row // high]) + columns[name], row % high, row // high) for name, row in rows.items()
    }


def _height(widths: Mapping[int, int]) -> int:
    """Rows of a strip, so that strips of these widths beside each other fill a page."""
    most = max(1, PAGE // ((WIDE + APART) * max(widths.values(), default=1)))
    return max(SHORT, -(-len(widths) // most))


def _svg(graph: ModelGraph, boxes: Sequence[Box]) -> str:
    places = _places(boxes)
    wide = (1 + max((place.column for place in places.values()), default=0)) * (WIDE + APART) + 2 * APART
    high = (1 + max((place.row for place in places.values()), default=0)) * ROW + APART
    lines = [_line(places, name, box.op.name) for box in boxes for name in box.op.inputs if name in places]
    drawn = [_drawn(graph, box, places) for box in boxes]
    return f'<svg class="graph" width="{wide}" height="{high}">{"".join(lines)}{"".join(drawn)}</svg>'


def _corner(place: Place) -> tuple[int, int]:
    return APART + place.column * (WIDE + APART), APART // 2 + place.row * ROW


def _line(places: Mapping[str, Place], source: str, target: str) -> str:
    """From the bottom of one box to the top of another; a long way passes on the right of what stands between.

    To another strip it goes from side to side, through the gap before that strip, in one of three lanes.
    """
    (left, top), (right, bottom) = _corner(places[source]), _corner(places[target])
    if places[target].strip != places[source].strip:
        gap = right - APART * (1 + places[source].row % 3) // 4
        return f'<path d="M{left + WIDE} {top + HIGH // 2} H{gap} V{bottom + HIGH // 2} H{right}"/>'
    x, y, u, v = left + WIDE // 2, top + HIGH, right + WIDE // 2, bottom
    if places[target].row - places[source].row == 1:
        return f'<path d="M{x} {y} C{x} {y + 12} {u} {v - 12} {u} {v}"/>'
    beside = max(left, right) + WIDE + APART // 2
    return (
        f'<path d="M{x} {y} C{x} {y + 14} {beside} {y} {beside} {y + 24} L{beside} {v - 24} '
        f'C{beside} {v} {u} {v - 14} {u} {v}"/>'
    )


def _drawn(graph: ModelGraph, box: Box, places: Mapping[str, Place]) -> str:
    x, y = _corner(places[box.op.name])
    group = graph.groups[box.number] if box.number >= 0 else None
    free = group is not None and group.free
    hue = _hue(box.number)
    paint = f' fill="hsl({hue:.0f} 70% 50% / .22)" stroke="hsl({hue:.0f} 65% 50%)"' if free else ""
    first, second = (escape(_short(text)) for text in _label(box.op))
    kind = "plain" if group is None else "free" if free else "frozen"
    return (
        f'<g class="{kind}" data-group="{box.number}">'
        f"<title>{escape(_words(box, group))}</title>"
        f'<rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}"{paint}/>'
        f'<text x="{x + 8}" y="{y + 13}">{first}</text><text class="soft" x="{x + 8}" y="{y + 25}">{second}</text></g>'
    )


def _label(op: OpNode) -> tuple[str, str]:
    """The module that ran it, and the operation with the shape of what it gives."""
    name = op.target.removeprefix("aten.").partition(".")[0]
    shape = "×".join(map(str, op.shape)) if op.shape else ""
    return visible(op.module or op.name), f"{visible(name)} {shape}".rstrip()


def _words(box: Box, group: CoupledGroup | None) -> str:
    """What is told of a box, with line breaks."""
    lines = [" ".join(_label(box.op))]
    if group is None:
        return lines[0]
    members = dict.fromkeys(part.param.rpartition(".")[0] for part in group.slices)
    state = "free" if group.free else group.frozen_because or "one unit only"
    lines += [f"group {group.name}: {group.width} channels, {state}", f"members: {', '.join(members)}"]
    return "\n".join(visible(line) for line in lines)


def _short(text: str) -> str:
    return text if len(text) <= 26 else f"…{text[-25:]}"


def _hue(number: int) -> float:
    return GOLDEN * number % 360


def _quoted(text: str) -> str:
    """A string of Graphviz."""
    inner = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{inner}"'
