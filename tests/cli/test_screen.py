"""The progress line and the bar."""

from __future__ import annotations

import re

import pytest

from nasprune.cli.screen import SearchScreen, TrainingScreen, _left
from nasprune.common.phases import PhaseStep
from nasprune.cost.budget import Cost
from nasprune.run.exploration import Progress
from nasprune.train.polish import PolishStep
from nasprune.train.progress import TrainingStep


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


def drawn(capsys, screen) -> list[str]:
    """The lines that the bar has drawn, without colours and what moves the cursor."""
    screen._bar.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_what_is_counted_fits_the_screen(monkeypatch, capsys, columns):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    polish = PolishStep(50, 400, 0.1234, 0.5678, 0.4321, 4.9e-5, 30.0)
    training = TrainingStep(3, 10, 12, 345, 2.3, 0.5, 4.9e-5, 1234.5, 75.0)
    with SearchScreen(None).shown() as screen:
        for act, texts in (
            (lambda: screen(progress(11, 200, 60.0)), ["searching", "trial 12/200", "15:40 left"]),
            (lambda: screen.polishing(polish), ["polishing", "step 50/400", "3:30 left"]),
            (lambda: screen.phase(PhaseStep("timing layers", 3, 40, 6.0)), ["timing layers", "3 of 40", "1:14 left"]),
        ):
            act()
            last = drawn(capsys, screen)[-1]
            assert len(last) <= columns
            assert "…" not in last
            assert all(text in last for text in texts)
    with TrainingScreen().shown() as screen:
        screen.step(training)
        last = drawn(capsys, screen)[-1]
        assert len(last) <= columns
        assert all(text in last for text in ["training", "epoch 3/10", "1:15 left"])
        assert ("rate 4.9e-05" in last) == (columns == 120)


def test_a_phase_without_steps_shows_its_seconds(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    now = 100.0
    monkeypatch.setattr("nasprune.cli.bars.time.monotonic", lambda: now)
    with SearchScreen(None).shown() as screen:
        screen.phase(PhaseStep("tracing", 0, 0, 0.0))
        now += 12
        assert drawn(capsys, screen)[-1].endswith("tracing  12 s")
        screen.phase(PhaseStep("scoring units", 3, 4, 6.0))
        assert drawn(capsys, screen)[-1].endswith("━ 3 of 4  0:02 left")
        screen.phase(PhaseStep("proving", 0, 0, 0.0))
        now += 3
        assert drawn(capsys, screen)[-1].endswith("proving  3 s")
