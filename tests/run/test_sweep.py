"""A sweep gives what searches of their own give, and finds once what they share."""

from __future__ import annotations

import pytest
import torch

import nasprune
from nasprune.run import fitting, rounds, search
from nasprune.run.sharing import Shared
from nasprune.run.sweep import distinct, folder_name
from tests.nets import EXAMPLE, TinyResNet, images

BUDGETS = ["80%", "60%"]
OPTIONS = {"data": images(), "evaluator": "kl", "criterion": "l2"}


def counted(monkeypatch, module, name, calls):
    """The function counts its calls."""
    real = getattr(module, name)

    def function(*args, **kwargs):
        calls[name] = calls.get(name, 0) + 1
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, function)


def test_results_are_those_of_searches_of_their_own(monkeypatch, tmp_path):
    calls: dict[str, int] = {}
    for module, name in ((search, "trace"), (search, "left_out"), (rounds, "harms"), (rounds, "CostModel")):
        counted(monkeypatch, module, name, calls)
    seen = []
    together = nasprune.sweep(TinyResNet(), EXAMPLE, BUDGETS, out=tmp_path, on_result=seen.append, **OPTIONS)
    assert calls == {"trace": 1, "left_out": 1, "harms": 1, "CostModel": 1}
    assert seen == together
    assert sorted(path.name for path in tmp_path.iterdir()) == ["60pct", "80pct"]
    for budget, found in zip(BUDGETS, together, strict=True):
        alone = nasprune.search(TinyResNet(), EXAMPLE, budget, **OPTIONS)
        assert found.plan == alone.plan
        assert found.report.score == alone.report.score
        assert found.report.settings == alone.report.settings
        assert all(torch.equal(a, b) for a, b in zip(found.model.parameters(), alone.model.parameters(), strict=True))
    assert together[0].report.cut.flops > together[1].report.cut.flops


@pytest.mark.parametrize(
    ("budgets", "error", "message"),
    [
        ([], nasprune.InputError, "a sweep needs budgets"),
        (["60%", "60 %"], nasprune.InputError, "twice"),
        (["60%", "many"], nasprune.BudgetError, "does not parse"),
        (3, nasprune.InputError, "`budgets` must be a name or a list of names"),
    ],
)
def test_budgets_are_checked_before_anything_runs(budgets, error, message):
    with pytest.raises(error, match=message):
        nasprune.sweep(None, None, budgets)


def test_names_of_folders():
    assert [folder_name(text) for text in ("50%", "2GFLOPs", " 1.5 MParams")] == ["50pct", "2GFLOPs", "1.5_MParams"]
    assert distinct(("50%", "2GFLOPs")) == ("50%", "2GFLOPs")


def test_what_is_shared_is_made_once():
    shared, made = Shared(), []
    assert [shared.once("a", lambda: made.append(1) or len(made)) for _ in range(3)] == [1, 1, 1]
    assert shared.once("b", lambda: 5) == 5


def test_the_dense_network_runs_once_for_all_refits(monkeypatch):
    calls: dict[str, int] = {}
    counted(monkeypatch, fitting, "targets_of", calls)
    nasprune.sweep(TinyResNet(), EXAMPLE, BUDGETS, **{**OPTIONS, "trials": 1, "allow_chance": True})
    assert calls == {"targets_of": 1}
