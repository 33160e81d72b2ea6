"""`nasprune search --strategy NAME --finetune EPOCHS` from the shell."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

import nasprune
from nasprune.cli import main
from nasprune.cli.config import FILE
from nasprune.data import load_data
from nasprune.train.measures import accuracy
from tests.toys import tiny_net

pytestmark = pytest.mark.usefixtures("few_digits_for_all")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, few_digits_for_all):
    """A directory with the weights of a dense net."""
    place = tmp_path_factory.mktemp("training")
    save_file(nasprune.finetune(tiny_net(), "digits", epochs=8, lr=0.1).state_dict(), place / "dense.safetensors")
    return place


@pytest.fixture
def place(folder):
    return folder


@pytest.fixture
def command(command):
    """`nasprune search` for the dense net, with these arguments."""
    model = ["--model", "tests.toys:tiny_net", "--weights", "dense.safetensors", "--data", "digits", "--budget", "60%"]
    return partial(command, "search", *model)


def test_a_search_is_followed_by_its_training(command, tmp_path, capsys):
    code, shown, told = command("--finetune", 1, "--out", tmp_path / "run", "--json")
    assert code == 0, told
    record = json.loads(shown)
    tuned = record["finetuned"]
    assert tuned["folder"] == str(tmp_path / "run" / "finetuned")
    assert list(tuned["accuracy"]) == ["dense", "not-refitted", "cut", "fine-tuned"]
    assert not any("Fine-tune it" in note for note in record["report"]["notes"])
    nets = nasprune.load(tmp_path / "run", model=tiny_net()), nasprune.load(tmp_path / "run/finetuned", tiny_net())
    assert [accuracy(net, load_data("digits").test) for net in nets] == list(tuned["accuracy"].values())[2:]
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path / "run"), str(tmp_path / "run"), "--json"])
    compared = json.loads(capsys.readouterr().out)["runs"][0]["accuracy"]
    assert list(compared) == ["dense", "cut", "fine-tuned"]
    assert not torch.equal(nets[0].linear.weight, nets[1].linear.weight)


def test_the_last_lines_are_about_the_trained_network(command, tmp_path):
    out = tmp_path / "run"
    code, shown, told = command("--finetune", 1, "--out", out)
    assert code == 0, told
    assert f"export   nasprune export {out}/finetuned --format onnx --model tests.toys:tiny_net\n" in shown
    assert shown.count("nasprune export") == shown.count("Load it in Python:") == 1
    assert shown.rstrip().endswith(f'small = nasprune.load("{out}/finetuned", model=tiny_net())')
    notes = [line for line in shown.splitlines() if line.startswith("note ")]
    assert len({*notes}) == len(notes)


def test_a_strategy_takes_the_place_of_the_search(command, tmp_path, monkeypatch):
    out = tmp_path / "run"
    code, shown, told = command("--strategy", "hard(rounds=2)", "--finetune", 2, "--out", out)
    assert code == 0, told
    assert "epoch 2/2  loss " in told
    assert "strategy hard(rounds=2), 2 epochs in" in shown
    assert "proof    passed" in shown
    assert "trials.jsonl" not in shown
    assert "fine-tuned" in shown
    assert "latency at batch 1" in shown
    assert not (out / "trials.jsonl").exists()
    report = json.loads((out / "report.json").read_text())
    assert report["cut"]["flops"] <= 0.6 * report["dense"]["flops"]
    assert report["measured"]["test accuracy fine-tuned"] == accuracy(
        nasprune.load(out, tiny_net()), load_data("digits").test
    )
    assert "nasprune search --config" in (out / "report.html").read_text()
    text = (out / FILE).read_text()
    assert 'strategy = "hard(rounds=2)"' in text
    with pytest.raises(SystemExit) as caught:
        main(["search", "--config", str(out / FILE), "--out", str(tmp_path / "again")])
    assert caught.value.code == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategy", "sofd", "--finetune", 1], "unknown strategy 'sofd'"),
        (["--strategy", "soft(time=1)", "--finetune", 1], "times"),
        (["--strategy", "soft"], "say how long with --finetune EPOCHS"),
        (["--finetune", 0], "`epochs` must be at least 1"),
        (["--strategy", "soft", "--finetune", 1, "--controller", "random"], "--controller belongs to a search"),
        (["--strategy", "soft", "--finetune", 1, "--polish"], "--polish belongs to a search"),
        (["--finetune", 1, "--sweep", "50%,60%"], "--sweep does not train what it finds"),
        (["--finetune", 1, "--data", f"{__name__}:unlabelled"], "training needs labels"),
    ],
)
def test_what_it_cannot_do_is_one_line(command, folder, arguments, message):
    code, shown, told = command(*arguments)
    assert (code, shown) == (2, "")
    assert message in told.strip().splitlines()[-1]
    assert "Traceback" not in told
    assert not (folder / "runs").exists()


def test_training_without_data_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["search", "--model", "tests.toys:tiny_net", "--budget", "60%", "--finetune", "2"])
    assert "training needs labelled images; give some with --data" in capsys.readouterr().err


def unlabelled():
    return torch.randn(60, 1, 8, 8)
