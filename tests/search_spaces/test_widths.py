from __future__ import annotations

from math import lcm

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasprune.errors import InputError
from nasprune.registry import load
from nasprune.run.names import search_space
from tests.fakes import graph_of, group, resnet_like

build = load("search_spaces", "widths")


@given(st.integers(1, 300), st.integers(1, 6), st.sampled_from([1, 2, 8, 12, 32]), st.sampled_from([0.0, 0.1, 0.5]))
def test_options_are_valid_on_the_grid_and_end_at_the_full_width(size, cells, divisor, min_share):
    item = group("g", size * cells, cells=cells)
    space = build(graph_of([item]), divisor=divisor, min_share=min_share)
    if not item.free:
        assert not space.choices
        return
    for choice in space.widths:
        assert choice.options[-1] == item.width
        assert all(option % cells == 0 for option in choice.options)
        assert choice.options[0] >= min_share * item.width
        steps = {after - before for before, after in zip(choice.options, choice.options[1:-1], strict=False)}
        assert len(steps) <= 1
        assert all(option % divisor == 0 for option in choice.options[:-1])
    if min_share == 0:
        assert len(space.widths) == (item.width > lcm(divisor, item.multiple_of))


@pytest.mark.parametrize(("width", "step"), [(256, 8), (64, 8), (48, 4), (16, 2), (12, 1), (5, 1)])
def test_narrow_groups_get_a_finer_grid(width, step):
    (choice,) = build(graph_of([group("g", width)]), min_share=0).widths
    assert choice.options[:2] == (step, 2 * step)


def test_frozen_groups_and_blocks_are_left_out():
    graph = resnet_like(1, 2, 16).frozen({"layer0.1": "no", "layer0.1.conv1": "no"})
    space = build(graph)
    assert [choice.name for choice in space.widths] == ["stem", "layer0.0.conv1", "layer0.0.conv2", "layer0.1.conv2"]
    assert [choice.name for choice in space.blocks] == ["layer0.0"]
    assert not build(graph, blocks=False).blocks


def test_include_and_exclude_are_globs_and_an_excluded_group_keeps_its_block():
    graph = resnet_like(2, 2, 16)
    assert {choice.name for choice in build(graph, include=["layer1.*"], exclude=["*.0"]).choices} == {
        "layer1.1",
        "layer1.1.conv1",
        "layer1.1.conv2",
    }
    assert {choice.name for choice in build(graph, include="layer1.1.conv2").choices} == {"layer1.1.conv2"}
    assert "layer0.0" not in {choice.name for choice in build(graph, exclude=["layer0.0.conv1"]).choices}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ["typo*"]}, "'typo\\*' matches no group"),
        ({"divisor": 0}, "`divisor` must be at least 1"),
        ({"min_share": 2.0}, "`min_share`"),
        ({"nope": 1}, "does not take these options.*nope"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        search_space(resnet_like(), "widths", **options)


def test_a_name_that_is_there_stands_for_itself_alone():
    graph = graph_of([group("blocks.b[0]", 16), group("blocks.b*", 16), group("blocks.bx", 16), group("blocks.b0", 16)])
    for name in ("blocks.b[0]", "blocks.b*"):
        assert [choice.name for choice in build(graph, include=name).choices] == [name]
    assert [choice.name for choice in build(graph, exclude=["blocks.b*", "blocks.bx"]).choices] == [
        "blocks.b[0]",
        "blocks.b0",
    ]
    assert len(build(graph, include="blocks.?*").choices) == 4
