"""`nasprune inspect` and `nasprune list`."""

from __future__ import annotations

import json

import pytest

from nasprune.cli.app import program


def test_inspect_tables(command):
    code, out, _ = command("inspect", "--model", "tests.toys:tiny_net", "--verify")
    assert code == 0
    for text in ("layer1.0.conv1", "the model returns these channels", "can be pruned", "half of it cut and proved"):
        assert text in out


def test_inspect_json_agrees_with_the_graph(command):
    code, out, _ = command("inspect", "--model", "tests.toys:tiny_net", "--json")
    record = json.loads(out)
    assert code == 0
    groups = {group["name"]: group for group in record["groups"]}
    assert groups["conv1"]["width"] == 4
    assert groups["linear"]["frozen_because"] == "the model returns these channels"
    assert 0 < groups["layer1.0.conv1"]["flops_share"] < 1
    assert {block["name"] for block in record["blocks"] if block["free"]} == {"layer1.0"}
    assert record["dense"]["flops"] > 0


def test_inspect_fails_where_nothing_can_be_pruned(command, tmp_path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\nclass Net(nn.Linear):\n    input_shape = (4,)\n"
        "    def __init__(self):\n        super().__init__(4, 2)\n"
    )
    code, out, err = command("inspect", "--model", f"{tmp_path / 'own.py'}:Net")
    assert code == 1
    assert "the model returns these channels" in out
    assert "nothing of" in err


def test_list_and_check(command, tmp_path):
    code, out, err = command("list", "--check")
    assert code == 0
    assert "can be imported" in err
    for name in ("l1", "l2", "fpgm", "bn_scale", "evolution", "nni:TPE", "importance", "accuracy", "widths"):
        assert f" {name} " in out
    (tmp_path / "criteria").mkdir()
    (tmp_path / "criteria" / "broken.py").write_text("import no_such_thing\n")
    code, out, err = command("list", "--check", "--plugins", str(tmp_path))
    assert code == 1
    assert "broken" in out
    assert "no_such_thing" in err
    assert "Traceback" not in err


def test_version_and_no_command(command):
    import nasprune

    code, out, _ = command("--version")
    assert (code, out.strip()) == (0, nasprune.__version__)


@pytest.mark.parametrize("words", [["--help"], []])
def test_the_commands_fit_the_smallest_screen_a_line_each(command, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, err = command(*words)
    lines = out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    listed = out.partition(" Commands ")[2].splitlines()
    assert [line.split()[1] for line in listed if line.startswith("│")] == [*program().commands]
    assert err == ""


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("search", ["(runs/MODEL-BUDGET)", "(where --time-limit leaves time for them)"]),
        ("finetune", ["(RUN/finetuned)", "(0.01, or 0.05 for an untrained net)"]),
        ("export", ["(RUN/export/model.SUFFIX)"]),
        ("trim", ["(runs/SPACE-BUDGET)"]),
    ],
)
def test_help_says_what_a_default_is_that_depends_on_others(command, monkeypatch, name, shown):
    monkeypatch.setenv("COLUMNS", "300")
    code, out, _ = command(name, "--help")
    assert code == 0
    for text in shown:
        assert text in " ".join(out.split())
