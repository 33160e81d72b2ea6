"""What is saved comes back equal on an untouched model; what cannot be saved leaves nothing behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from nasprune.common.files import write_all
from nasprune.cut.plan import PrunePlan
from nasprune.errors import InputError, PlanError
from nasprune.run.checkpoint import check_folder, load, save
from nasprune.run.trace import trace
from tests.toys import Outcome, tiny_net, tiny_outcome, tiny_report

FILES = {"plan.json", "model.safetensors", "report.json", "report.md", "report.html"}


@pytest.fixture(scope="module")
def model():
    return tiny_net(seed=3)


@pytest.fixture(scope="module")
def outcome(model):
    return tiny_outcome(trace(model, torch.zeros(1, 1, 8, 8)), model)


def test_round_trip_on_a_model_with_other_weights(tmp_path, outcome):
    save(outcome, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    dense = tiny_net(seed=4)
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    small = load(tmp_path / "run", dense)
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(small(x), outcome.model(x))
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())
    count = sum(parameter.numel() for parameter in small.parameters())
    assert count < sum(parameter.numel() for parameter in dense.parameters())


def test_fine_tuned_weights_are_saved_in_the_place_of_the_cut_ones(tmp_path, model, outcome):
    tuned = tiny_outcome(trace(model, torch.zeros(1, 1, 8, 8)), model).model
    nn.init.ones_(tuned.linear.bias)
    save(outcome, tmp_path / "run", model=tuned)
    assert torch.equal(load(tmp_path / "run", tiny_net()).linear.bias, tuned.linear.bias)


def test_inputs_that_a_network_would_run_on_for_minutes_are_not_made_up(tmp_path, outcome, monkeypatch):
    save(outcome, tmp_path / "run")
    monkeypatch.setattr("nasprune.run.checkpoint.UNASKED", 63)
    with pytest.raises(InputError, match=r"records inputs of 64 numbers, and no more than 63 .* pass example_inputs="):
        load(tmp_path / "run", tiny_net())
    assert load(tmp_path / "run", tiny_net(), example_inputs=torch.zeros(1, 1, 8, 8))


def test_plan_survives_json(outcome):
    assert PrunePlan.from_json(outcome.plan.to_json()) == outcome.plan


def test_another_model_is_refused_naming_the_first_difference(tmp_path, outcome):
    save(outcome, tmp_path / "run")
    with pytest.raises(PlanError, match=r"made for a model with 'conv1.weight', which this model lacks"):
        load(tmp_path / "run", nn.Linear(3, 3))


def test_tied_tensors_are_written_once_and_stay_tied(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4, bias=False)
            self.second = nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    model = Tied()
    inputs = torch.zeros(1, 4)
    outcome = tiny_outcome(trace(model, inputs), model)
    save(outcome, tmp_path)
    small = load(tmp_path, Tied(), example_inputs=inputs)
    assert small.second.weight is small.first.weight
    assert torch.equal(small.first.weight, outcome.model.first.weight)


def test_the_same_run_is_replaced_and_another_one_refused(tmp_path, outcome):
    save(outcome, tmp_path)
    save(outcome, tmp_path)
    other = Outcome(outcome.model, outcome.plan, tiny_report(settings={"budget": "60%"}))
    with pytest.raises(InputError, match=r"holds another run \(budget was '50%', now '60%'\); choose another folder"):
        save(other, tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="is a file"):
        check_folder(tmp_path / "run", {})


@pytest.mark.parametrize("name", ["plan.json", "model.safetensors"])
def test_missing_and_damaged_files_get_one_line(tmp_path, outcome, name):
    save(outcome, tmp_path)
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises((InputError, PlanError), match=r"not a nasprune plan|are damaged|are not opened"):
        load(tmp_path, tiny_net())
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match="cannot read"):
        load(tmp_path, tiny_net())


def test_an_unwritable_place_gets_one_line(outcome):
    with pytest.raises(InputError, match=r"cannot write to '/proc/nowhere': No such file"):
        save(outcome, "/proc/nowhere")


def test_a_full_disk_leaves_what_was_there(tmp_path, outcome, monkeypatch):
    save(outcome, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    monkeypatch.setattr(os, "fsync", _no_space)
    for folder in ("run", "new"):
        with pytest.raises(InputError, match="No space left on device; free some space"):
            save(outcome, tmp_path / folder)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert not (tmp_path / "new").exists()


def _no_space(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_size_limit_is_met_for_real(tmp_path):
    code = (
        "import resource; from pathlib import Path; from nasprune.common.files import write_all;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        f"write_all(Path({str(tmp_path / 'run')!r}), {{'a': b'x', 'b': b'x' * 200}})"
    )
    run = subprocess.run([sys.executable, "-Bc", code], capture_output=True, text=True, check=False)
    assert "InputError: cannot write to" in run.stderr
    assert "File too large" in run.stderr
    assert not (tmp_path / "run").exists()


def test_write_all(tmp_path):
    write_all(tmp_path / "deep" / "folder", {"a": b"1", "b": b"2"})
    assert sorted(path.name for path in (tmp_path / "deep" / "folder").iterdir()) == ["a", "b"]
