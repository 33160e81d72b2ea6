"""Pictures of graphs: every operation is a box of its group's colour, lines go down, names are no HTML."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

import nasprune
from nasprune.cli import main
from nasprune.errors import InputError
from nasprune.graph import drawing
from tests.nets import EXAMPLE, TinyResNet


@pytest.fixture(scope="module")
def graph():
    return nasprune.trace(TinyResNet(depth=2), EXAMPLE)


def test_every_operation_is_a_box_in_the_colour_of_its_group(graph):
    page = drawing.page(graph, "tiny")
    boxes = dict(re.findall(r"<title>(\S+) \S+ [^<\n]*\ngroup (\S+):", page))
    assert boxes["conv"] == boxes["blocks.0.bn2"] == boxes["blocks.1"] == "conv"
    assert boxes["blocks.0.conv1"] == boxes["blocks.0.bn1"] == "blocks.0.conv1"
    assert boxes["head"] == "head"
    assert page.count("<rect") == len([op for op in graph.ops if not op.name.startswith(("p_", "b_"))])
    frozen = re.search(r'<g class="frozen" data-group="(\d+)"><title>head linear', page)
    assert graph.groups[int(frozen[1])].name == "head"
    assert re.search(r'<g class="plain" data-group="-1"><title>x x', page)
    assert "the model returns these channels" in page


def test_data_flows_down(graph, monkeypatch):
    boxes = drawing._boxes(graph)
    for short, strips in ((100, 1), (5, 4)):
        monkeypatch.setattr(drawing, "SHORT", short)
        places = drawing._places(boxes)
        assert len({(place.column, place.row) for place in places.values()}) == len(boxes)
        assert {place.strip for place in places.values()} == set(range(strips))
        for box in boxes:
            above = [places[name] for name in box.op.inputs if name in places]
            assert all((one.strip, one.row) < (places[box.op.name].strip, places[box.op.name].row) for one in above)


def test_a_long_picture_is_broken_into_strips_beside_each_other():
    deep = nasprune.trace(TinyResNet(depth=8), EXAMPLE)
    page = drawing.page(deep, "tiny")
    wide, high = map(int, re.search(r'<svg class="graph" width="(\d+)" height="(\d+)">', page).groups())
    assert wide <= drawing.PAGE + 3 * drawing.APART
    assert high < 0.6 * drawing.ROW * len(drawing._boxes(deep))


def test_graphviz(graph):
    text = drawing.dot(graph)
    assert text.startswith("digraph model {")
    assert '"conv2d" -> "batch_norm";' in text
    assert text.count("->") == sum(
        name in {box.op.name for box in drawing._boxes(graph)}
        for box in drawing._boxes(graph)
        for name in box.op.inputs
    )


def test_names_are_no_html(graph):
    evil = '<img src=x>"&\n\\'
    ops = tuple(replace(op, module=evil) for op in graph.ops)
    strange = replace(graph, ops=ops, skipped={evil: evil})
    assert "<img" not in drawing.page(strange, evil)
    assert '\\"&' in drawing.dot(strange)


def test_from_the_shell(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments, code in ((["--html", "g.html", "--dot", "new/g.dot"], 0), (["--html", "g.txt"], 2)):
        with pytest.raises(SystemExit) as caught:
            main(["inspect", "--model", "tests.toys:tiny_net", *arguments])
        assert caught.value.code == code
    assert "ending with .html, got 'g.txt'" in capsys.readouterr().err
    assert (tmp_path / "g.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "new" / "g.dot").read_text().startswith("digraph")


@pytest.mark.parametrize(("name", "begins"), [("new/graph.html", "<!doctype html>"), ("graph.dot", "digraph")])
def test_a_graph_is_drawn_into_a_file(graph, tmp_path, name, begins):
    path = nasprune.draw(graph, tmp_path / name, title="sample")
    assert path == tmp_path / name
    assert path.read_text().lower().startswith(begins)


def test_a_graph_is_drawn_in_no_other_format(graph, tmp_path):
    with pytest.raises(InputError, match=r"ending with \.html or \.dot, got .*graph\.png"):
        nasprune.draw(graph, tmp_path / "graph.png")
    assert not list(tmp_path.iterdir())
