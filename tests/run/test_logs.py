"""A search is written trial by trial where it was asked for."""

from __future__ import annotations

import csv

import pytest

from nasprune.errors import InputError
from nasprune.run.search import search
from tests.nets import EXAMPLE, TinyResNet


def test_every_trial_is_a_line_and_the_callers_function_is_called(tmp_path):
    seen = []
    result = search(TinyResNet(), EXAMPLE, "60%", trials=4, log=f"csv:{tmp_path / 'log'}", on_progress=seen.append)
    (file,) = (tmp_path / "log").rglob("metrics.csv")
    rows = list(csv.DictReader(file.open()))
    assert [float(row["score"]) for row in rows] == pytest.approx([trial.score for trial in result.trials])
    assert [float(row["FLOPs"]) for row in rows] == [trial.cost.flops for trial in result.trials]
    assert float(rows[-1]["best score"]) == pytest.approx(max(trial.score for trial in result.trials))
    assert len(seen) == 4


@pytest.mark.parametrize("log", ["csv", 3, [3], {"csv:out": 1}])
def test_a_log_that_is_none_is_refused_before_anything_is_traced(log):
    with pytest.raises(InputError, match="csv:"):
        search(TinyResNet(), EXAMPLE, "60%", trials=2, log=log)
