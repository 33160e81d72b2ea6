"""The only trial of a search is refitted as the result is, and is the result."""

from __future__ import annotations

import pytest
import torch

from nasprune import search
from nasprune.cut.surgery import build
from nasprune.refit.reconstruct import reconstruct
from nasprune.run import fitting
from tests.nets import EXAMPLE, TinyResNet, images


@pytest.fixture
def refits(monkeypatch):
    """How many images each refit saw."""
    seen = []

    def counted(dense, small, graph, plan, batches, *options, **named):
        seen.append(sum(map(len, batches)) if isinstance(batches, (list, tuple)) else len(batches))
        return reconstruct(dense, small, graph, plan, batches, *options, **named)

    monkeypatch.setattr(fitting, "reconstruct", counted)
    return seen


def test_the_only_trial_is_refitted_once_whatever_an_evaluator_does_to_it(refits):
    torch.manual_seed(0)
    model, data = TinyResNet(), images(80)

    def spoiling(net):
        with torch.no_grad():
            for value in net.parameters():
                value.zero_()
        return 1.0

    found = search(model, EXAMPLE, "60%", data=data, evaluator=spoiling, trials=1, allow_chance=True)
    assert len(refits) == 1
    assert found.report.trials == 1
    again = search(model, EXAMPLE, "60%", data=data, evaluator="kl", trials=1, allow_chance=True)
    assert again.plan == found.plan
    assert all(map(torch.equal, found.model.state_dict().values(), again.model.state_dict().values()))
    bare = build(model, found.graph, found.plan)
    assert any(not torch.equal(a, b) for a, b in zip(bare.parameters(), found.model.parameters(), strict=True))


def test_a_recorded_trial_leaves_the_refit_to_the_result(refits, tmp_path):
    torch.manual_seed(0)
    model, data = TinyResNet(), images(80)
    options = {"data": data, "evaluator": "kl", "trials": 1, "allow_chance": True, "out": tmp_path / "run"}
    first, again = (search(model, EXAMPLE, "60%", **options) for _ in range(2))
    assert len(refits) == 2
    assert all(map(torch.equal, first.model.state_dict().values(), again.model.state_dict().values()))


def test_of_several_trials_the_best_is_refitted_anew(refits):
    search(TinyResNet(), EXAMPLE, "60%", data=images(80), evaluator="kl", trials=2, allow_chance=True)
    assert len(refits) == 1
