"""Exceptions in plugins: the user's are named with file and line, nasprune's own blame the model or the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nasprune
from nasprune.common.blame import running, told
from nasprune.criteria.l2 import L2
from nasprune.errors import InputError, PluginError
from tests.nets import EXAMPLE, TinyResNet

IMAGE = EXAMPLE


def write(folder, place, source):
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return path


CRITERION = "from nasprune import Criterion\n\n\nclass Mine(Criterion):\n    def score(self, group, context):\n"
CONTROLLER = """from nasprune import Controller


class Mine(Controller):
    def __init__(self, problem, *, seed, moves=1):
        self.problem, self.moves = problem, moves

    def ask(self):
        return self.problem.space.largest() if self.moves < 3 else 1 / 0

    def tell(self, trial):
        self.moves += 1
"""
EVALUATOR = "from nasprune import Evaluator\n\n\nclass Mine(Evaluator):\n    def __init__(self, task, *, power=1.0):\n"
EVALUATOR += "        self.power = power\n\n    def evaluate(self, candidate):\n        return 2.0**self.power\n"


def test_an_exception_in_a_plugin_names_its_line(tmp_path):
    path = write(tmp_path, "criteria/mine.py", f"{CRITERION}        return group.nothing\n")
    with pytest.raises(PluginError, match=rf"`Mine` on group .* failed: AttributeError: .*, at {path}:6$"):
        nasprune.search(TinyResNet(), IMAGE, "60%", criterion="mine", plugins=tmp_path, trials=2)
    path = write(tmp_path, "controllers/mine.py", CONTROLLER)
    with pytest.raises(PluginError, match=rf"controller `Mine` failed: ZeroDivisionError: .*, at {path}:9$"):
        nasprune.search(TinyResNet(), IMAGE, "100%", controller="mine", plugins=tmp_path, trials=9)


def test_what_fails_inside_nasprune_blames_no_plugin():
    def fails() -> None:
        raise RuntimeError("sizes differ\nmore")

    message = rf"criterion `l2` cannot work .* RuntimeError: sizes differ, at {__file__}:"
    with pytest.raises(InputError, match=message), running(L2(), "criterion `l2`"):
        fails()


@pytest.mark.parametrize("fail", [lambda: torch.zeros(2) @ torch.zeros(3), lambda: np.zeros((2, 3)).reshape(5)])
def test_library_frames_are_passed_over(fail):
    with pytest.raises((RuntimeError, ValueError)) as caught:
        fail()
    assert f", at {__file__}:" in told(caught.value)


def test_every_kind_takes_options_behind_its_name(tmp_path):
    write(tmp_path, "controllers/climb.py", CONTROLLER)
    write(tmp_path, "evaluators/margin.py", EVALUATOR)
    result = nasprune.search(
        TinyResNet(),
        IMAGE,
        "100%",
        controller="climb(moves=2)",
        evaluator="margin(power=3)",
        space="widths(divisor=4)",
        plugins=tmp_path,
        trials=1,
    )
    assert result.report.score == 8
    assert result.report.settings["controller"] == "climb(moves=2)"
    for option, message in (
        ({"controller": "climb(moves='x')"}, "TypeError"),
        ({"controller": "climb(speed=1)"}, "unknown `climb` option 'speed'"),
        ({"evaluator": "margin(powr=1)"}, "did you mean power"),
        ({"space": "widths(divisor=0)"}, "must be at least 1"),
        ({"space": "widths(div=1)"}, "did you mean divisor"),
    ):
        with pytest.raises(nasprune.NaspruneError, match=message):
            nasprune.search(TinyResNet(), IMAGE, "100%", plugins=tmp_path, trials=1, **option)
