"""`nasprune show`, `compare` and `export`: what a run has found, again, side by side, and in other formats."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import nasprune
from nasprune.cost.budget import Cost
from nasprune.errors import InputError
from tests.toys import tiny_net, tiny_outcome, tiny_report

MODEL = ["--model", "tests.toys:tiny_net"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory with two runs, the first of them with a fine-tuning inside."""
    place = tmp_path_factory.mktemp("results")
    net = tiny_net()
    outcome = tiny_outcome(nasprune.trace(net, torch.zeros(1, 1, 8, 8)), net)
    accuracies = {"test accuracy dense": 0.9, "test accuracy cut": 0.7}
    first = tiny_report(measured={"latency_ms dense": 2.0, "latency_ms cut": 1.0, **accuracies})
    nasprune.save(replace(outcome, report=first), place / "half")
    tuned = replace(first, measured={**first.measured, "test accuracy fine-tuned": 0.85})
    nasprune.save(replace(outcome, report=tuned), place / "half" / "finetuned")
    other = tiny_report(settings={"model": "other:net", "evaluator": "kl"}, cut=Cost(500, 20, 100), budget="25%")
    nasprune.save(replace(outcome, report=other), place / "quarter")
    (place / "begun").mkdir()
    (place / "begun" / "trials.jsonl").touch()
    return place


@pytest.fixture
def place(folder):
    return folder


def test_the_result_again(command):
    code, out, err = command("show", "half")
    assert (code, err) == (0, "")
    for text in ("FLOPs (multiply-adds)", "2 KFLOPs", "proof    passed", "test accuracy", "nasprune.load("):
        assert text in out
    assert "files    half/: plan.json, model.safetensors, report.html, report.md, report.json\n" in out
    assert "fine-tuned      85.0%" in command("show", "half/finetuned")[1]


def test_python_gives_what_the_commands_print(folder, monkeypatch):
    monkeypatch.chdir(folder)
    report = nasprune.read_report("half")
    assert report.measured["test accuracy cut"] == 0.7
    runs = nasprune.compare("quarter", folder / "half")
    assert [(run.folder, run.cut.flops) for run in runs] == [("quarter", 500), (str(folder / "half"), 1000)]
    assert runs[1].accuracy == {"dense": 0.9, "cut": 0.7, "fine-tuned": 0.85}
    assert [run.budget for run in nasprune.compare(folder)] == [run.budget for run in runs]
    with pytest.raises(InputError, match="give the folders of two runs"):
        nasprune.compare()
    with pytest.raises(InputError, match=r"report.*nowhere"):
        nasprune.read_report("nowhere")


def test_the_line_of_files_has_those_that_are_there(command, folder):
    for name in ("times.json", "run.toml", "of_mine.txt"):
        (folder / "quarter" / name).touch()
    names = "plan.json, model.safetensors, report.html, report.md, report.json, times.json, run.toml"
    assert f"files    quarter/: {names}\n" in command("show", "quarter")[1]


def test_what_was_trained_in_the_folder_is_named_with_its_accuracy(command):
    out = command("show", "half")[1]
    assert "trained  half/finetuned/: test accuracy dense 90.0%, cut 70.0%, fine-tuned 85.0%\n" in out
    assert "export   nasprune export half/finetuned --format onnx --model tests.toys:tiny_net\n" in out
    assert 'nasprune.load("half/finetuned"' in out
    assert 'nasprune.load("half"' not in out
    tuned = json.loads(command("show", "half", "--json")[1])["finetuned"]
    assert (tuned["folder"], tuned["accuracy"]["fine-tuned"]) == ("half/finetuned", 0.85)
    out = command("show", "quarter")[1]
    assert "trained" not in out
    assert "export   nasprune export quarter --format onnx --model other:net\n" in out


def test_as_few_bytes_as_can_be(command, folder):
    code, out, err = command("compress", "quarter", "--bits", "3", *MODEL, "--quiet")
    assert (code, err) == (0, "")
    for text in ("bits a weight", "times smaller", "nasprune.decompress("):
        assert text in out
    back = nasprune.decompress(folder / "quarter" / "compressed.safetensors", nasprune.load("quarter", tiny_net()))
    assert max(len(value.unique()) for value in back.state_dict().values() if value.ndim > 1) <= 8
    found = json.loads(command("show", "quarter", "--json")[1])
    assert found["compressed"]["file"] == (folder / "quarter" / "compressed.safetensors").stat().st_size
    assert "bits a weight" in command("show", "quarter")[1]
    assert "`bits` must lie in" in command("compress", "quarter", "--bits", "0", *MODEL)[2]


def test_the_result_as_json(command):
    code, out, err = command("show", "half", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["folder"], found["report"]["cut"]["flops"]) == ("half", 1000)


def test_runs_side_by_side(command):
    code, out, err = command("compare", "half", "quarter")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["quarter", "half"]
    assert "70.0" in lines[3]
    assert "85.0" in lines[3]
    assert "several models: other:net, tests.toys:tiny_net" in out
    assert "several evaluators" in out


def test_runs_side_by_side_as_json(command):
    rows = json.loads(command("compare", "half", "quarter", "--json")[1])["runs"]
    assert [row["cut"]["flops"] for row in rows] == [500, 1000]
    assert rows[1]["accuracy"] == {"dense": 0.9, "cut": 0.7, "fine-tuned": 0.85}


def test_a_run_in_another_format(command, folder):
    code, out, err = command("export", "half", "--format", "pt2", *MODEL, "--quiet")
    assert (code, err) == (0, "")
    assert "batches of any size" in out
    assert "torch.export.load(" in out
    program = torch.export.load(folder / "half" / "export" / "model.pt2").module()
    images = torch.randn(5, 1, 8, 8)
    small = nasprune.load(folder / "half", model=tiny_net())
    assert torch.allclose(program(images), small(images), atol=1e-5)


def test_a_format_by_the_name_of_the_file(command, folder):
    out = json.loads(command("export", "half", "--out", "tiny.pt", *MODEL, "--json")[1])
    assert (out["format"], out["files"], out["batch"]) == ("torchscript", ["tiny.pt"], None)
    assert (folder / "tiny.pt").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["show", "nowhere"],
            "'nowhere' is no folder of a run; `nasprune search --budget 50% --out nowhere` makes one",
        ),
        (["show", "half/report.json"], "'half/report.json' is no folder of a run"),
        (["compare", "half", "nowhere"], "'nowhere' is no folder of a run"),
        (["export", ".", *MODEL], "'.' holds the runs half, quarter; give one of them"),
        (["show", "begun"], "the search in 'begun' has not ended; repeat its command, and it goes on"),
        (["export", "half", "--format", "pt2"], "say which model it was with --model"),
        (["export", "half", "--format", "onxx", *MODEL], "did you mean onnx"),
        (["export", "half", "--format", "module", "--out", "half.bin", *MODEL], "ends with '.py', got 'half.bin'"),
        (["export", "half", "--out", "net.bin", *MODEL], "says no format"),
        (["export", "nowhere", "--format", "pt2", *MODEL], "'nowhere' is no folder of a run"),
    ],
)
def test_what_they_cannot_do_is_one_line(command, arguments, message):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert message in err.strip().splitlines()[-1]
    assert "Traceback" not in err
