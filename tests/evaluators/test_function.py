"""A user's own function in the place of an evaluator's name."""

from __future__ import annotations

import pytest
import torch

from nasprune import registry
from nasprune.base import Evaluator
from nasprune.errors import InputError, PluginError, UnknownNameError
from nasprune.run.search import search
from nasprune.testing import check_evaluator
from tests.evaluators.test_accuracy import Given, task
from tests.nets import EXAMPLE, TinyResNet, images

SOURCE = """
import torch
from helper import SIGN

def weights(model):
    return SIGN * sum(value.numel() for value in model.parameters())

def probe(model):
    assert not model.training and not torch.is_grad_enabled()
    return model(torch.ones(1, 3, 8, 8)).mean()

def words(model):
    return "good"

def several(model):
    return model(torch.ones(2, 3, 8, 8))

def broken(model):
    return model.nothing

def ends(model):
    raise SystemExit(3)

def endless(model):
    return float("inf")
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "helper.py").write_text("SIGN = -1.0\n")
    path = tmp_path / "own.py"
    path.write_text(SOURCE)
    return path


def test_it_scores_the_cut_network(own):
    found = search(TinyResNet(), EXAMPLE, "60%", evaluator=f"{own}:weights", trials=5, space_options={"divisor": 4})
    assert [trial.score for trial in found.trials] == [-trial.cost.params for trial in found.trials]
    assert found.report.score == -sum(value.numel() for value in found.model.parameters())


def test_it_keeps_the_contract_and_gets_a_network_that_is_ready(own):
    check_evaluator(registry.load("evaluators", f"{own}:probe"))
    net, filled = TinyResNet(), task(images(64), images(8))
    evaluator = registry.load("evaluators", f"{own}:probe")(filled)
    with torch.no_grad():
        plain = float(net.eval()(torch.ones(1, 3, 8, 8)).mean())
    assert evaluator.evaluate(Given(net, refitted=True)) == pytest.approx(plain)
    assert evaluator.evaluate(Given(net)) != pytest.approx(plain)


def test_a_module_and_a_class_work_too(own):
    assert issubclass(registry.load("evaluators", "tests.evaluators.test_function:constant"), Evaluator)
    assert registry.load("evaluators", "nasprune.evaluators.kl:KL").__name__ == "KL"


def test_a_criterion_may_come_from_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from nasprune.criteria.l1 import L1\nclass Mine(L1):\n    pass\nclass Other:\n    pass\n"
    )
    assert registry.load("criteria", f"{tmp_path}/mine.py:Mine").__name__ == "Mine"
    with pytest.raises(PluginError, match="expected exactly one class that implements"):
        registry.load("criteria", f"{tmp_path}/mine.py:Other")


def constant(model):
    return 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("words", "must return one number, higher is better, got a str"),
        ("several", "must return one number, higher is better, got a Tensor"),
        ("broken", "failed: AttributeError: 'TinyResNet' object has no attribute 'nothing'"),
        ("ends", "failed: SystemExit: 3"),
    ],
)
def test_functions_that_give_no_number_are_told(own, name, message):
    evaluator = registry.load("evaluators", f"{own}:{name}")(task(None, None))
    with pytest.raises(PluginError, match=rf"own\.py:{name}'.* {message}"):
        evaluator.evaluate(Given(TinyResNet(), refitted=True))


def test_functions_that_are_not_there_are_told(own, tmp_path):
    with pytest.raises(UnknownNameError, match=r"unknown evaluator .*'weight': did you mean weights"):
        registry.load("evaluators", f"{own}:weight")
    with pytest.raises(InputError, match=r"no file .*nowhere"):
        registry.load("evaluators", f"{tmp_path}/nowhere.py:score")
    with pytest.raises(PluginError, match="nothing_here"):
        registry.load("evaluators", "tests.evaluators.test_function:nothing_here")
    (tmp_path / "bad.py").write_text("import nowhere_to_be_found\ndef score(model): return 1\n")
    with pytest.raises(InputError, match=r"cannot import .*nowhere_to_be_found"):
        registry.load("evaluators", f"{tmp_path}/bad.py:score")


def test_scores_that_are_not_finite_name_the_function(own):
    with pytest.raises(PluginError, match=r"evaluator `.*own\.py:endless` on decision .*: expected a finite score"):
        search(TinyResNet(), EXAMPLE, "60%", evaluator=f"{own}:endless", trials=1)
