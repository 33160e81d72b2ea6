"""One search that is killed and one with two writers, of the many that `python -m benchmarks.kills` makes."""

from __future__ import annotations

import subprocess
import sys


def test_a_killed_search_and_two_writers_give_the_same_plan():
    command = [sys.executable, "-m", "benchmarks.kills", "--times", "1", "--trials", "5"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "kill -9: 1 times, 0 wrong" in run.stdout
    assert "two writers: 1 times, 0 wrong" in run.stdout
