"""`nasprune.prune`: from a dense network to a small trained one, by a search or by a strategy."""

from __future__ import annotations

import pytest
import torch

import nasprune
from nasprune.cost.flops import measure
from nasprune.errors import InputError, UnknownNameError
from nasprune.train import training
from tests.toys import tiny_net

IMAGE = torch.zeros(1, 1, 8, 8)


@pytest.fixture(scope="module")
def dense(few_digits_for_all):
    return nasprune.finetune(tiny_net(), "digits", epochs=8, lr=0.1)


def test_a_search_and_its_training_are_one_call(dense, tmp_path) -> None:
    found = nasprune.prune(dense, IMAGE, "60%", data="digits", epochs=2, out=tmp_path / "out")
    nets = [name.rpartition(" ")[2] for name in found.report.measured if name.startswith("validation accuracy ")]
    assert nets == ["dense", "not-refitted", "cut", "fine-tuned"]
    assert (tmp_path / "out" / "finetuned" / "finetune.json").is_file()
    nasprune.save(found, tmp_path / "saved")
    loaded = nasprune.load(tmp_path / "saved", model=tiny_net(1))
    with torch.no_grad():
        assert torch.equal(loaded(IMAGE + 1), found.model(IMAGE + 1))


def test_a_strategy_trains_within_the_budget(dense, tmp_path) -> None:
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    found, again = (nasprune.prune(dense, IMAGE, "50%", data="digits", epochs=2, strategy="soft") for _ in range(2))
    assert measure(found.model, IMAGE) == found.report.cut
    assert found.report.cut.flops <= 0.5 * found.report.dense.flops
    assert found.report.proof.ok
    assert found.report.measured["change by the cut"] < 1e-4
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    assert all(
        torch.equal(*pair)
        for pair in zip(found.model.state_dict().values(), again.model.state_dict().values(), strict=True)
    )
    nasprune.save(found, tmp_path)
    loaded = nasprune.load(tmp_path, model=tiny_net(1))
    with torch.no_grad():
        assert torch.equal(loaded(IMAGE + 1), found.model(IMAGE + 1))


def test_a_strategy_makes_zeros_within_the_budget(dense, tmp_path) -> None:
    found = nasprune.prune(dense, IMAGE, "30%NNZ", data="digits", epochs=2, strategy="dns")
    assert found.report.sparsity.cut <= 0.3 * found.report.sparsity.dense
    assert sum(layer.size - layer.kept for layer in found.report.sparsity.layers) == found.plan.masks.zeros
    nasprune.save(found, tmp_path)
    loaded = nasprune.load(tmp_path, model=tiny_net(1))
    with torch.no_grad():
        assert torch.equal(loaded(IMAGE + 1), found.model(IMAGE + 1))


def test_a_strategy_learns_while_it_cuts() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4
    inputs = torch.eye(4)[labels].repeat(1, 2) + 0.3 * torch.randn(200, 8, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    found = nasprune.prune(net, inputs[:1], "40%", data=(inputs, labels), epochs=12, strategy="soft", batch_size=16)
    assert found.report.measured["validation accuracy dense"] < 0.5
    assert found.report.measured["validation accuracy fine-tuned"] > 0.9


@pytest.mark.parametrize("strategy", ["csgd(pull=0.5)", "hard(rounds=3)", "resrep"])
def test_a_strategy_goes_back_where_training_diverges(dense, strategy) -> None:
    told = []
    found = nasprune.prune(
        dense, IMAGE, "50%", data="digits", epochs=2, strategy=strategy, lr=1e6, on_epoch=told.append, distil=False
    )
    assert "diverged" in " ".join(found.report.notes)
    assert all(value.isfinite().all() for value in found.model.state_dict().values())
    assert found.report.cut.flops <= 0.5 * found.report.dense.flops


def test_it_stops_when_asked_with_a_proved_network(dense) -> None:
    asked = []
    found = nasprune.prune(
        dense,
        IMAGE,
        "50%",
        data="digits",
        epochs=3,
        strategy="greg",
        should_stop=lambda: asked.append(0) or len(asked) > 5,
    )
    assert "stopped after" in " ".join(found.report.notes)
    assert found.report.cut.flops <= 0.5 * found.report.dense.flops


def test_what_cannot_be_trained_is_said_before_it_begins(dense, monkeypatch) -> None:
    monkeypatch.setattr(training.Training, "run", lambda self: pytest.fail("it trained"))
    images = torch.randn(40, 1, 8, 8)
    for options, kind, message in (
        ({"strategy": "sofd"}, UnknownNameError, "unknown strategy 'sofd'.*soft"),
        ({"strategy": "soft(time=3)"}, UnknownNameError, "times"),
        ({"strategy": 3}, InputError, "`strategy` must be a name"),
        ({"strategy": "soft", "controller": "random"}, InputError, "`controller` belongs to a search"),
        ({"strategy": "soft", "data": images}, InputError, "training needs labels"),
        ({"epochs": 0}, InputError, "`epochs` must be at least 1"),
    ):
        with pytest.raises(kind, match=message):
            nasprune.prune(dense, IMAGE, "50%", **{"data": "digits", "epochs": 1, **options})


@pytest.mark.parametrize("strategy", [None, "hard"])
def test_a_task_that_is_none_is_told_before_anything_is_searched(strategy):
    images, labels = torch.randn(60, 1, 8, 8), torch.arange(60) % 4
    for task in (nasprune.Detection, "classes", object()):
        with pytest.raises(InputError, match="`task`"):
            nasprune.prune(tiny_net(), images[:1], "60%", data=(images, labels), epochs=1, strategy=strategy, task=task)
