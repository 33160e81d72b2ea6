"""Which layers keep the time: measured at the modules that hold no others, and nothing stays on the network."""

from __future__ import annotations

import time
from collections.abc import Callable, Container

import pytest
import torch
from torch import nn

from nasprune.cost.latency import threads_set
from nasprune.cost.module_times import FINE, module_milliseconds
from nasprune.run import charts
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
    (found,) = module_milliseconds([model], torch.zeros(1, 4), seconds=0.0)
    assert set(found) == {"inner.0", "inner.1"}
    assert min(found.values()) > 0
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Slow(nn.Module):
    """Waits as many seconds as it is told when it runs."""

    def __init__(self, told: Callable[[], float]) -> None:
        super().__init__()
        self.told = told

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.told())
        return x


def logged(log: list[str], name: str, slow: Container[int] = ()) -> nn.Module:
    """A network that notes its runs, and is slow in some of all that were noted, as on a busy machine."""

    def told() -> float:
        log.append(name)
        return 0.1 if len(log) in slow else 0.001

    return nn.Sequential(Slow(told))


def test_networks_are_timed_in_turn_and_a_slow_run_counts_for_nothing() -> None:
    log: list[str] = []
    nets = [logged(log, name, slow=(1, 2, 5, 6)) for name in "dc"]
    with threads_set(2):
        first, second = module_milliseconds(nets, torch.zeros(1, 4), seconds=0.0)
    assert log == [*"cddccddc"]
    assert 1 <= first["0"] < 100
    assert 1 <= second["0"] < 100


@pytest.mark.skipif(not FINE, reason="the clock of threads is too coarse here")
def test_on_one_thread_what_other_programs_take_does_not_count() -> None:
    for threads, waits in ((1, False), (2, True)):
        with threads_set(threads):
            (found,) = module_milliseconds([nn.Sequential(Slow(lambda: 0.1))], torch.zeros(1, 4), seconds=0.0)
        assert (found["0"] > 99) == waits


def test_short_networks_run_more_often() -> None:
    log: list[str] = []
    module_milliseconds([logged(log, "d")], torch.zeros(1, 4), seconds=0.5)
    assert 4 < len(log) <= 51


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


def test_a_chart_has_dense_and_cut_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "available", lambda: True)
    monkeypatch.setattr(charts, "library", lambda: "")
    report = tiny_report(layers=LAYERS)
    (chart,) = charts.charts(report, (), {})
    rows = chart.spec["data"]["values"]
    assert [(row["layer"], row["network"], row["ms"]) for row in rows[:2]] == [
        ("layer0", "cut", 60.0),
        ("layer0", "dense", 2.0),
    ]
    assert len(rows) == 2 * SHOWN
    page = html(report, folder="runs/x")
    assert page.count("Which layers keep the time") == 1
    assert 'id="layers"' in page
    assert not charts.charts(tiny_report(), (), {})
