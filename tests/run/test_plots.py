"""The charts of a result as objects: drawn, written, shown in a notebook."""

from __future__ import annotations

import json

import pytest

from nasprune.errors import InputError, UnknownNameError
from nasprune.run import plots
from nasprune.run.charts import charts
from nasprune.run.plots import plotted
from nasprune.run.search import search
from tests.nets import EXAMPLE, TinyResNet
from tests.toys import tiny_report

HARMS = {"conv1": {4: 2.0, 8: 1.0, 16: 0.0}, "layer1.1": {0: 3.0, 1: 0.0}}


@pytest.fixture
def drawn():
    return charts(tiny_report(), [], HARMS)


def test_a_chart_is_written_in_the_format_of_its_suffix(drawn, tmp_path):
    pytest.importorskip("vl_convert")
    plot = plotted(drawn, "blocks")
    heads = {".svg": b"<svg", ".png": b"\x89PNG", ".json": b"{"}
    for suffix, head in heads.items():
        assert plot.save(tmp_path / f"blocks{suffix}").read_bytes().startswith(head)
    assert "layer1.1" in (tmp_path / "blocks.svg").read_text()
    assert json.loads((tmp_path / "blocks.json").read_text())["title"] == "Harm of removing blocks"
    assert plot._repr_mimebundle_()["image/svg+xml"].startswith("<svg")
    with pytest.raises(InputError, match=r"\.svg, \.png, \.json, got \.gif"):
        plot.save(tmp_path / "blocks.gif")


def test_without_the_package_the_message_has_the_line_to_type(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)
    plot = plotted(drawn, None)
    assert plot.title == "Harm against width"
    with pytest.raises(InputError, match=r"pip install 'nasprune\[plots\]'"):
        plot.save(tmp_path / "x.svg")
    assert "application/vnd.vegalite.v5+json" in plot._repr_mimebundle_()


def test_what_cannot_be_drawn_is_said(drawn):
    with pytest.raises(UnknownNameError, match="unknown chart 'block': did you mean blocks"):
        plotted(drawn, "block")
    with pytest.raises(InputError, match="nothing to draw"):
        plotted([], None)


def test_a_result_has_its_charts():
    result = search(TinyResNet(), EXAMPLE, "60%", trials=12)
    assert result.plot().title == "Cost against score"
    with pytest.raises(UnknownNameError, match="known: layers, trials"):
        result.plot("curves")  # without data nothing has a harm
