"""The charts of a report as objects: shown in a notebook, written to a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nasprune.common.arguments import path as as_path
from nasprune.common.files import write_all
from nasprune.errors import InputError, UnknownNameError
from nasprune.run.charts import Chart, Spec, available

MISSING = "charts need vl-convert-python: pip install 'nasprune[plots]'"
SUFFIXES = (".svg", ".png", ".json")
SCALE = 2.0  # pixels of a PNG for one of the chart


@dataclass(frozen=True)
class Plot:
    """A chart in Vega-Lite. In a notebook it shows itself. spec: for Altair, `altair.Chart.from_dict(plot.spec)`."""

    title: str
    words: str
    spec: Spec = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Writes the chart, and gives the path. Its suffix says the format: .svg, .png or .json, for Vega-Lite itself.

        Raises:
            InputError: the suffix is another, vl-convert-python is not installed, or the file cannot be written.
        """
        place = as_path("path", path, "write plot.save('trials.svg')")
        write_all(place.parent, {place.name: self._written(place.suffix.lower())})
        return place

    def _repr_mimebundle_(self, **_: object) -> Mapping[str, str]:
        """For notebooks."""
        kind, shown = ("image/svg+xml", ".svg") if available() else ("application/vnd.vegalite.v5+json", ".json")
        return {kind: self._written(shown).decode(), "text/plain": repr(self)}

    def _written(self, suffix: str) -> bytes:
        if suffix == ".json":
            return json.dumps(self._titled, indent=1).encode()
        if suffix not in SUFFIXES:
            raise InputError(f"a chart is written as {', '.join(SUFFIXES)}, got {suffix or 'no suffix'}")
        if not available():
            raise InputError(MISSING)
        import vl_convert

        if suffix == ".svg":
            text: str = vl_convert.vegalite_to_svg(self._titled)
            return text.encode()
        made: bytes = vl_convert.vegalite_to_png(self._titled, scale=SCALE)
        return made

    @property
    def _titled(self) -> dict[str, Any]:
        return {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", "title": self.title, **self.spec}


def plotted(charts: list[Chart], name: str | None) -> Plot:
    """The chart of that name, or the first.

    Raises:
        InputError: there is nothing to draw. UnknownNameError: there is no such chart; names those that there are.
    """
    if not charts:
        raise InputError(
            "there is nothing to draw: a search with data has harms, one with three trials or more a front; "
            "give data= or trials="
        )
    known = {chart.name: chart for chart in charts}
    if name is not None and name not in known:
        raise UnknownNameError("chart", str(name), known)
    chart = known[name] if name is not None else charts[0]
    return Plot(chart.title, chart.words, chart.spec)
