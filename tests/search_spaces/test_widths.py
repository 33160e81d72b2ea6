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


@given(st.integers(1, 40), st.sampled_from([1, 2, 8, 12]), st.integers(1, 3))
def test_what_widths_are_asked_to_be_multiples_of_is_kept_or_refused(times, number, cells):
    graph = graph_of([group("a", 4 * times, cells=cells if 4 * times % cells == 0 else 1), group("b", 16)])
    if 4 * times % number:
        with pytest.raises(InputError, match=f"a has {4 * times} channels, which is no multiple of {number}"):
            build(graph, multiple_of=f"a={number}")
        return
    space = build(graph, multiple_of=f"a={number}", min_share=0)
    options = {choice.name: choice.options for choice in space.widths}
    assert all(option % number == 0 for option in options.get("a", ()))
    assert options["b"] == tuple(range(2, 17, 2))


def test_the_last_number_counts_where_several_name_a_group():
    space = build(graph_of([group("a", 64), group("b", 64)]), multiple_of=(8, "b=32"), min_share=0)
    assert [choice.options for choice in space.widths] == [tuple(range(8, 65, 8)), (32, 64)]


@pytest.mark.parametrize("given", ["a=0", "a", -8, "a=x", "zzz=8"])
def test_multiples_that_mean_nothing_are_refused(given):
    with pytest.raises(InputError, match=r"multiple_of|zzz"):
        build(graph_of([group("a", 16)]), multiple_of=given)
