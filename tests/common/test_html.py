"""Pieces of HTML escape what they are given, and objects show themselves in notebooks."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

import nasprune
from nasprune.common.html import bar, items, page, table
from tests.nets import EXAMPLE, TinyResNet

EVIL = "<b>&\x1b\n"


class _Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.count = [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)
            self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def result():
    return nasprune.search(TinyResNet(), EXAMPLE, "60%", trials=3)


def test_texts_are_escaped():
    shown = page(EVIL, [table((EVIL,), [("x",)]), items(["y"])])
    assert "<b>" not in shown
    assert "&lt;b&gt;&amp;\\x1b\\n" in shown
    assert _Tags(shown).open == []


@pytest.mark.parametrize(("share", "width"), [(0.25, "25.0%"), (-1, "0.0%"), (3, "100.0%")])
def test_bars_stay_within_bounds(share, width):
    assert f'style="width:{width}"' in bar(share)


def test_results_graphs_and_plans_show_tables_in_notebooks(result):
    graph = result.graph
    tags = {
        name: _Tags(value._repr_html_())
        for name, value in (("result", result), ("plan", result.plan), ("graph", graph))
    }
    assert all(found.open == [] for found in tags.values())
    assert tags["graph"].count["tr"] == 2 + len(graph.groups) + len(graph.blocks)
    assert tags["plan"].count["tr"] == 1 + len(result.plan.keep)
    assert tags["result"].count["table"] == 2
    assert "proved" in result._repr_html_()


def test_spaces_and_files_show_tables_in_notebooks(result, tmp_path):
    space = nasprune.search_space(result.graph)
    file = nasprune.export(result.model, EXAMPLE, tmp_path / "small.pt2")
    assert repr(result.report).startswith("SearchReport(TinyResNet within 60% of FLOPs: ")
    for value, said in ((space, "stays or goes"), (file, "<code>")):
        assert _Tags(value._repr_html_()).open == []
        assert said in value._repr_html_()
    assert _Tags(space._repr_html_()).count["tr"] == 1 + len(space.choices)


def test_a_large_space_is_counted_and_listed_in_part():
    wide = [nasprune.WidthChoice(f"conv{number}", tuple(range(1, 301))) for number in range(2000)]
    space = nasprune.SearchSpace((*wide, nasprune.BlockChoice("block")))
    lines = repr(space).splitlines()
    assert lines[0] == "SearchSpace: 2000 widths and 1 blocks, about 1e4955 networks"
    assert lines[1] == "  conv0     1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, …, 300"
    assert lines[-1] == "  ... and 1941 more"
    assert repr(nasprune.SearchSpace(())) == "SearchSpace: 0 widths and 0 blocks, 1 networks"


def test_a_plan_that_cuts_nothing(result):
    plan = nasprune.PrunePlan(signature=result.plan.signature)
    assert "Every group stays whole" in plan._repr_html_()
