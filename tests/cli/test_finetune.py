"""`nasprune finetune` from the shell: trains what a search saved, goes on when repeated, and refuses in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import nasprune
from nasprune.data import load_data
from nasprune.train.measures import accuracy
from tests.toys import tiny_net

ROOT = Path(__file__).parents[2]
DENSE = ["--model", "tests.toys:tiny_net", "--weights", "dense.safetensors"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory with the weights of a dense net and a search's result in `found`."""
    place = tmp_path_factory.mktemp("finetune")
    data = load_data("digits")
    dense = nasprune.finetune(tiny_net(), data, epochs=6, lr=0.1)
    save_file(dense.state_dict(), place / "dense.safetensors")
    result = nasprune.search(dense, data.input_shape and torch.zeros(1, *data.input_shape), "50%", data=data)
    nasprune.save(result, place / "found")
    return place


@pytest.fixture
def place(folder):
    return folder


@pytest.fixture
def command(command):
    """`nasprune finetune` with these arguments."""
    return partial(command, "finetune")


def test_it_trains_saves_and_goes_on(command, folder, tmp_path):
    out = tmp_path / "tuned"
    line = ["found", "--data", "digits", "--epochs", 2, *DENSE, "--out", out]
    code, shown, told = command(*line)
    assert code == 0, told
    assert "epoch 2/2  loss " in told
    assert "test accuracy" in shown
    data = load_data("digits")
    tuned = nasprune.load(out, model=tiny_net())
    before = nasprune.load(folder / "found", model=tiny_net())
    assert accuracy(tuned, data.test) > accuracy(before, data.test) - 0.02
    weights = (out / "model.safetensors").read_bytes()
    assert command(*line)[0] == 0
    assert (out / "model.safetensors").read_bytes() == weights
    code, _, told = command(*line, "--seed", 3)
    assert (code, "is of another training" in told) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["found"], "fine-tuning needs labelled images; give some with --data"),
        (["nowhere", "--data", "digits"], "no folder of a run; `nasprune search"),
        (["found", "--data", "digits", "--epochs", 0], "`epochs` must be at least 1"),
        (["found", "--data", "digits", "--optimizer", "lion"], "`optimizer` must be one of sgd, adamw"),
        (["found", "--data", "digits"], "which a file must not choose to run; say which model it was with --model"),
    ],
)
def test_what_it_cannot_do_is_one_line(command, arguments, message):
    code, shown, told = command(*arguments)
    assert (code, shown) == (2, "")
    assert message in told.strip().splitlines()[-1]
    assert "Traceback" not in told


@pytest.mark.slow
def test_several_processes_train_one_network(folder, tmp_path):
    """As the docs type it: two processes, of which the first one speaks and writes."""
    words = [Path(sys.executable).with_name("torchrun"), "--nproc-per-node", 2, "--standalone", "-m", "nasprune"]
    command = [*words, "finetune", "found", "--data", "digits", "--epochs", 1, *DENSE, "--out", tmp_path / "tuned"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fine-tuned") == 1
    assert done.stderr.count("epoch 1/1") == 1
    assert (tmp_path / "tuned" / "model.safetensors").is_file()
