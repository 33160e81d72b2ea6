"""Which layers keep the time: what each took in the dense and in the cut network, and the rows that say so."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from nasprune.common.inputs import Inputs
from nasprune.cost.module_times import module_milliseconds
from nasprune.cost.units import number_of, percent
from nasprune.run.report import LayerTime

SHOWN = 15
TITLE = "Which layers keep the time"
HEAD = ("layer", "dense, ms", "cut, ms", "of the time")
WORDS = (
    "The median of several runs of both networks in turn, by PyTorch operator by operator, one item at once; shares "
    "are of what all layers of the cut network take. What no layer runs, such as an addition, is left out."
)


def layer_times(dense: nn.Module, cut: nn.Module, inputs: Inputs) -> tuple[LayerTime, ...]:
    """Those of the cut network that take most come first; a layer that is gone takes nothing."""
    before, after = module_milliseconds([dense, cut], inputs)
    found = [LayerTime(name, ms, after.get(name, 0.0)) for name, ms in before.items()]
    return tuple(sorted(found, key=lambda one: (-one.cut_ms, -one.dense_ms)))


def time_rows(layers: Sequence[LayerTime]) -> list[tuple[str, str, str, str]]:
    """Name, dense and cut milliseconds, and share of the time, of those that take most; the others in one row."""
    whole = sum(one.cut_ms for one in layers)
    if not whole:
        return []
    rows = [_row(one.layer, one.dense_ms, one.cut_ms, whole) for one in layers[:SHOWN]]
    if rest := layers[SHOWN:]:
        label = number_of(len(rest), "other")
        rows.append(_row(label, sum(one.dense_ms for one in rest), sum(one.cut_ms for one in rest), whole))
    return rows


def _row(label: str, dense: float, cut: float, whole: float) -> tuple[str, str, str, str]:
    return label, f"{dense:.3g}", f"{cut:.3g}", percent(cut / whole)
