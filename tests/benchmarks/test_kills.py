"""One search that is killed and one with two writers, of the many that `python -m benchmarks.kills` makes."""

from __future__ import annotations

import sys

from benchmarks import kills
from tests.forks import forked


def test_a_killed_search_and_two_writers_give_the_same_plan(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kills", "--times", "1", "--trials", "5"])
    run = forked(kills.main, tmp_path)
    shown = run.ended()
    assert run.process.exitcode == 0, shown
    assert "kill -9: 1 times, 0 wrong" in shown
    assert "two writers: 1 times, 0 wrong" in shown
