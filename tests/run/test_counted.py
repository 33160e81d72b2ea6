"""A search says what its FLOPs leave out, and refuses a share of them where that is too much."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nasprune.cli.search import show
from nasprune.cost.uncounted import Uncounted
from nasprune.errors import BudgetError
from nasprune.run.report import SearchReport
from nasprune.run.reporting import markdown
from nasprune.run.search import search
from tests.toys import tiny_report

IMAGE = torch.randn(1, 3, 8, 8)
LEFT_OUT = (
    Uncounted("linalg_inv", 0.12, by_convention=False, site="net.py:7"),
    Uncounted("element-wise", 0.3, by_convention=True),
)


class Whitened(nn.Module):
    """Two convolutions, and singular values of a matrix that is larger than both."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.linalg.svdvals(x.mean() + torch.ones(200, 200)).sum()
        return self.head(self.two(self.one(x).relu()).mean((2, 3))) / scale


class Reweighted(nn.Module):
    """No operator that counts FLOPs."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.scale).relu()


def test_a_share_of_flops_that_leave_out_the_work_is_refused() -> None:
    with pytest.raises(BudgetError, match=r"no formula for `linalg_svdvals` at .*\.py:\d+.*allow_uncounted=True"):
        search(Whitened(), IMAGE, "60%", trials=2)


def test_it_may_be_allowed_and_is_named() -> None:
    report = search(Whitened(), IMAGE, "60%", trials=2, allow_uncounted=True).report
    assert report.uncounted[0].operator == "linalg_svdvals"
    assert any("`linalg_svdvals` at" in note and "leave it out" in note for note in report.notes)
    assert {item.operator for item in report.uncounted[1:]} >= {"element-wise", "norms and sums"}
    assert SearchReport.from_json(report.to_json()) == report


def test_a_number_of_flops_needs_no_leave() -> None:
    assert search(Whitened(), IMAGE, "30KFLOPs", trials=2).report.cut.flops <= 30_000


def test_a_share_of_no_flops_is_refused() -> None:
    with pytest.raises(BudgetError, match="nothing that the model runs counts any"):
        search(Reweighted(), IMAGE, "60%", trials=2)


def test_the_page_and_the_command_name_what_is_left_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = replace(tiny_report(), uncounted=LEFT_OUT)
    page = markdown(report)
    assert "| `linalg_inv` at net.py:7 | **no formula** | 12.0% |" in page
    assert "| element-wise | by convention | 30.0% |" in page
    show(report, tmp_path)
    assert "linalg_inv 12.0%, element-wise 30.0% of the time" in capsys.readouterr().out


def test_a_report_without_the_list_is_read() -> None:
    record = json.loads(tiny_report().to_json())
    del record["uncounted"]
    assert SearchReport.from_json(json.dumps(record)).uncounted == ()
