"""Which layers keep the time: measured at the modules that hold no others, and nothing stays on the network."""

from __future__ import annotations

import torch
from torch import nn

from nasprune.cost.module_times import module_milliseconds
from nasprune.run.layer_times import SHOWN, time_rows
from nasprune.run.page import html
from nasprune.run.report import LayerTime, SearchReport
from nasprune.run.reporting import markdown
from tests.toys import tiny_report


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.unused = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.inner(x))


def test_every_layer_that_runs_is_timed_and_no_hook_stays() -> None:
    model = Twice().train()
    found = module_milliseconds(model, torch.zeros(1, 4))
    assert set(found) == {"inner.0", "inner.1"}
    assert min(found.values()) > 0
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


LAYERS = tuple(LayerTime(f"layer{n}", 2.0, 40.0 - n if n else 60.0) for n in range(20))


def test_those_that_take_most_are_shown_and_the_others_are_one_row() -> None:
    rows = time_rows(LAYERS)
    whole = sum(one.cut_ms for one in LAYERS)
    assert rows[0] == ("layer0", "2", "60", f"{60 / whole:.1%}")
    assert len(rows) == SHOWN + 1
    assert rows[-1][:3] == ("5 others", "10", "115")
    assert time_rows([]) == []


def test_reports_have_them_and_read_them_back() -> None:
    report = tiny_report(layers=LAYERS)
    assert SearchReport.from_json(report.to_json()) == report
    for page in (markdown(report), html(report, folder="runs/x")):
        assert "Which layers keep the time" in page
        assert "5 others" in page
    assert "Which layers keep the time" not in markdown(tiny_report())
