"""Folders and files of any name, and printed advice that works as printed."""

from __future__ import annotations

import os

import pytest

from nasprune.cli import main
from nasprune.models.nets import ResidualNet

SEARCH = ["search", "--model", "tests.toys:tiny_net", "--budget", "60%", "--trials", "2", "--controller", "random"]
NAMES = ['it\'s "o"', "new\nline \x1b[31mred", "\udcff raw", "-o"]


def test_a_search_into_a_folder_of_any_name(tmp_path, monkeypatch, capsysbinary):
    name = "".join(NAMES[::-1])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main([*SEARCH, "--out", name])
    captured = capsysbinary.readouterr()
    assert caught.value.code == 0, captured
    reports = {"report.html", "report.json", "report.md"}
    assert set(os.listdir(name)) == {"model.safetensors", "plan.json", "run.toml", "trials.jsonl", *reports}
    shown = captured.out.decode() + captured.err.decode()
    assert all(line.isprintable() for line in shown.splitlines())
    lines = shown.partition("Load it in Python:\n")[2].splitlines()
    code = "\n".join(line.strip() for line in lines if line.startswith("  "))
    names: dict[str, object] = {}
    exec(code, names)
    assert any(isinstance(value, ResidualNet) for value in names.values()), code


@pytest.mark.parametrize("name", NAMES)
def test_errors_show_names_without_control_characters(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    for arguments in (
        [*SEARCH, "--weights", name],
        ["search", "--model", name, "--budget", "60%"],
        [*SEARCH, f"--{name}"],
        ["trim", "--supernet", name, "--budget", "60%"],
        ["inspect", "--model", f"{name}.py:x"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        captured = capsys.readouterr()
        assert caught.value.code == 2
        assert captured.err.removesuffix("\n").isprintable()
        assert captured.err.count("\n") == 1
