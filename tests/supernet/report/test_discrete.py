"""The report of one network: warnings of cells without weights and of tiny networks, the baselines, saved pages."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import nasprune
from nasprune import OpScorer, Supernet
from nasprune.supernet.report.health import TrimReport
from tests.supernet.toys import OPS, Toy, images

pytestmark = pytest.mark.usefixtures("few_digits_for_all")


class Best(OpScorer):
    """One candidate is the best everywhere."""

    def __init__(self, op: str) -> None:
        self.op = op

    def score(self, task):
        return {one.name: torch.tensor([float(op == self.op) for op in one.ops]) for one in task.choices}


@cache
def toy() -> Supernet:
    """Not to be changed."""
    return Supernet.from_model(Toy(), images(), op_names=OPS, group=lambda place: f"cell/{place.index}")


def test_nothing_but_skips_is_said_and_that_the_budget_is_not_used():
    found = toy().discretise("90%", scorer=Best("skip"))
    free, tiny = found.notes
    assert "3 of the 3 operations in cells have no parameters: nothing is left there to train" in free
    assert "% of its budget: the scorer leaves room" in tiny
    assert [check.sentence for check in found.report.warnings] == [free, tiny]


def test_a_network_that_uses_its_budget_has_no_warning():
    supernet = toy()
    largest = supernet.discretise(scorer=Best("conv3")).counts.fvcore
    assert supernet.discretise(f"{largest}FLOPs", scorer=Best("conv3")).notes == ()


def test_the_baselines_stand_beside_it():
    report = toy().discretise("90%", scorer=Best("conv1")).report
    assert [row.scorer for row in report.rows] == ["Best", "flops_order", "random"]
    assert report.kept == {f"cell/{number}": ("conv1",) for number in range(3)}
    assert report.settings["discretise"] == "True"


def test_it_is_saved_and_reads_back(tmp_path):
    supernet = toy()
    found = supernet.discretise("90%", scorer=Best("conv1"))
    nasprune.save_architecture(found, tmp_path / "net", report=found.report)
    assert TrimReport.from_json((tmp_path / "net" / "report.json").read_text()) == found.report
    assert (tmp_path / "net" / "report.md").read_text().startswith("# Network picked")


def test_its_batch_norms_are_its_own():
    supernet = toy()
    nets = [supernet.discretise(scorer=Best("conv3"), data="digits", re_estimate=yes).model for yes in (True, False)]
    means = [next(m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)).running_mean for net in nets]
    assert not torch.equal(*means)


@pytest.mark.parametrize("scorer", [None, "paths"])
def test_paths_is_the_default(scorer):
    assert toy().discretise(scorer=scorer).report.settings["scorer"] == "paths"
