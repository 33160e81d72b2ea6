"""The progress line and the bar."""

from __future__ import annotations

import pytest

from nasprune.cli.screen import SearchScreen, _left
from nasprune.cost.budget import Cost
from nasprune.run.exploration import Progress


def progress(index, total, elapsed):
    return Progress(
        index=index,
        total=total,
        best_score=0.5,
        cost=Cost(2_000_000, 10, 10),
        elapsed=elapsed,
        score=0.4,
        own=Cost(3, 2, 1),
    )


@pytest.mark.parametrize(
    ("index", "total", "elapsed", "limit", "text"),
    [
        (0, 10, 1.0, None, "0:09 left"),
        (0, 40, 16.92, None, "11:00 left"),
        (9, 10, 3.0, None, "0:00 left"),
        (5, None, 30.0, 90.0, "1:00 left"),
        (4, 10, 60.0, 90.0, "0:30 left"),
    ],
)
def test_remaining_time_is_that_of_the_nearer_limit(index, total, elapsed, limit, text):
    assert _left(progress(index, total, elapsed), limit) == text


def test_plain_lines_where_there_is_no_terminal(capsys):
    with SearchScreen(None).shown() as screen:
        for index in range(3):
            screen(progress(index, 3, 1.0))
    assert capsys.readouterr().err == "trial 3/3  best 0.5000  2 MFLOPs  0:00 left\n"


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with SearchScreen(None).shown() as screen:
        screen(progress(0, 3, 1.0))
        screen._bar.refresh()
    err = capsys.readouterr().err
    assert "searching" in err
    assert "trial 1/3" in err
    assert "0:02 left" in err
