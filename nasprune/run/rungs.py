"""The networks on the way of a search by name, and what was measured of each: dense, cut alone, refitted, polished."""

from __future__ import annotations

from nasprune.cost.units import percent
from nasprune.run.report import SearchReport

DENSE, UNREFITTED, REFITTED, CUT, TUNED = "dense", "not-refitted", "refitted", "cut", "fine-tuned"
NETS = (DENSE, UNREFITTED, REFITTED, CUT, TUNED)
"""Networks by the last word of a measurement's name; `cut` is the one that a search gives."""
ACCURACY, DIVERGENCE = "validation accuracy", "divergence"


def by_net(report: SearchReport) -> dict[str, dict[str, float]]:
    """Quantity -> network -> value, of what was measured for networks."""
    found: dict[str, dict[str, float]] = {}
    for name, value in report.measured.items():
        quantity, _, net = name.rpartition(" ")
        if net in NETS:
            found.setdefault(quantity, {})[net] = value
    return found


def nets_of(report: SearchReport) -> list[str]:
    """The networks that something was measured of, from the dense one on; `dense` and `cut` are always there."""
    measured = {net for values in by_net(report).values() for net in values}
    return [net for net in NETS if net in measured or net in (DENSE, CUT)]


def heading(report: SearchReport, net: str) -> str:
    """What a network is called in a table: the result says what was done to it last, where others stand before it."""
    if net != CUT:
        return net
    if "divergence after polish" in report.measured:
        return f"{CUT}, polished"
    return f"{CUT}, refitted" if UNREFITTED in nets_of(report) else CUT


def rung_rows(report: SearchReport) -> list[tuple[str, ...]]:
    """Quantity, then a cell for each of `nets_of`, of what was measured for others than the dense and the cut one."""
    nets = nets_of(report)
    more = {quantity: found for quantity, found in by_net(report).items() if set(found) - {DENSE, CUT}}
    return [(quantity, *(cell(quantity, found.get(net)) for net in nets)) for quantity, found in more.items()]


def cell(quantity: str, value: float | None) -> str:
    """A measured value in words; nothing where there is none."""
    if value is None:
        return ""
    return percent(value) if "accuracy" in quantity else f"{value:.4g}"
