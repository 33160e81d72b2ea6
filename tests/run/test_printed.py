"""What a notebook shows of results, graphs and plans; and plans of trials that were not the best."""

import pytest
import torch
from torch import nn

import nasprune


@pytest.fixture(scope="module")
def found() -> tuple[nn.Module, nasprune.SearchResult]:
    torch.manual_seed(0)
    convs = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(80)]
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *convs, nn.Flatten(), nn.Linear(8 * 16, 4)).eval()
    return net, nasprune.search(net, torch.randn(1, 3, 4, 4), "60%", trials=6, controller="random")


def test_a_result_is_a_table(found):
    text = repr(found[1])
    assert len(text) < 1000
    assert "Sequential within 60% of FLOPs" in text
    assert "parameters" in text
    assert "proved, error" in text
    assert max(map(len, text.splitlines())) <= 120


def test_a_graph_is_a_line_a_group(found):
    lines = repr(found[1].graph).splitlines()
    assert lines[0] == "ModelGraph: 81 of 82 groups and 0 of 0 blocks are free"
    assert lines[1].split() == ["0", "8", "free"]
    assert lines[-1] == "  ... and 22 more"


def test_widths_that_shrink_alike_are_one_group_and_said_to_be_several():
    net = nn.Sequential(nn.Conv1d(4, 8, 1), nn.Conv1d(8, 8, 1, groups=2), nn.Flatten(), nn.Linear(8 * 6, 3)).eval()
    graph = nasprune.trace(net, torch.randn(1, 4, 6))
    assert repr(graph).splitlines()[1].endswith("8  free, 2 widths of 4 that shrink alike")


def test_a_plan_is_short(found):
    text = repr(found[1].plan)
    assert text.startswith("PrunePlan(keeps ")
    assert len(text) < 400


def test_a_point_of_the_front_can_be_built(found):
    net, result = found
    for point in result.report.front:
        plan = result.plan_of(point.trial)
        proof = nasprune.verify(net, nasprune.build(net, result.graph, plan), result.graph, plan)
        assert proof.ok
        assert proof.flops == point.cost.flops
    best = max(result.trials, key=lambda trial: trial.score)
    assert result.plan_of(best.index) == result.plan


@pytest.mark.parametrize("trial", [-1, 6, "best"])
def test_no_such_trial(found, trial):
    with pytest.raises(nasprune.InputError, match=r"the number of a trial from 0 to 5, got .*; take one from"):
        found[1].plan_of(trial)
