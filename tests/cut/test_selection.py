from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasprune.cut.selection import best_units, select
from nasprune.errors import PlanError
from tests.fakes import graph_of, group, resnet_like


def test_keeps_the_best_with_ties_to_the_lower_index():
    scores = torch.tensor([1.0, 3.0, 2.0, 3.0, 2.0])
    assert best_units(group("g", 5), scores, 3) == (1, 2, 3)


@given(st.data(), st.integers(1, 4), st.integers(1, 6))
def test_every_cell_keeps_its_share_and_nothing_dropped_beats_what_stays(data, cells, size):
    item = group("g", cells * size, cells=cells)
    values = data.draw(st.lists(st.integers(-3, 3), min_size=item.width, max_size=item.width))
    kept = data.draw(st.integers(1, size)) * cells
    units = best_units(item, torch.tensor(values, dtype=torch.float32), kept)
    assert len(units) == kept
    for cell in item.partitions:
        inside = set(cell) & set(units)
        assert len(inside) == kept // cells
        lost = [values[unit] for unit in cell if unit not in inside]
        assert not lost or max(lost) <= min(values[unit] for unit in inside)


def test_groups_inside_dropped_blocks_and_full_widths_are_left_out():
    graph = resnet_like(1, 2, 8)
    scores = {item.name: torch.rand(item.width) for item in graph.free_groups}
    decision = {"layer0.0": 0, "layer0.0.conv1": 4, "layer0.1.conv1": 4, "stem": 8}
    plan = select(graph, scores, decision)
    assert plan.drop == ("layer0.0",)
    assert set(plan.keep) == {"layer0.1.conv1"}


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        ({"nope": 1}, "neither a group nor a block"),
        ({"a": 0}, "can keep multiples of 2 from 2 to 8, got 0"),
        ({"a": 3}, "can keep multiples of 2"),
        ({"out": 2}, "frozen: the output"),
        ({"b": 2}, "has no scores"),
    ],
)
def test_a_decision_that_does_not_fit_is_refused(decision, message):
    graph = graph_of([group("a", 8, cells=2), group("b", 4), group("out", 4, frozen="the output")])
    with pytest.raises(PlanError, match=message):
        select(graph, {"a": torch.rand(8)}, decision)
