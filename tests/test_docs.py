"""What the documents tell people to type works as it stands."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import nasprune
from nasprune.cli import main
from nasprune.deploy.formats import FORMATS
from tests.deploy.test_export import ran_here

ROOT = Path(__file__).parents[1]


def blocks(path: str, language: str) -> list[str]:
    """The contents of the fenced blocks in that language; "sh" where none is named."""
    pieces = re.split(r"^```(.*)\n", (ROOT / path).read_text(), flags=re.MULTILINE)
    fenced = list(zip(pieces[1::4], pieces[2::4], strict=True))
    return [body for name, body in fenced if (name or "sh") == language]


def commands(path: str, language: str = "sh") -> list[list[str]]:
    """The `nasprune` lines of the code blocks, without comments, as lists of arguments."""
    return [line for block in blocks(path, language) for line in lines_of(block)]


def lines_of(block: str) -> list[list[str]]:
    """Its `nasprune` lines; a backslash at the end goes on in the next."""
    lines = [line.partition("#")[0] for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith(("nasprune ", ".venv/bin/nasprune "))]


def test_criterion_guide(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    criterion, check = blocks("docs/criteria.md", "python")
    path = tmp_path / re.match(r"# (\S+)\n", criterion)[1]
    path.parent.mkdir(parents=True)
    path.write_text(criterion)
    exec(check, {})
    search, listing = commands("docs/criteria.md")
    for arguments in ([*search, "--model", "tests.toys:tiny_net", "--budget", "60%", "--trials", "3"], listing):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0, capsys.readouterr().err
    assert "flow" in capsys.readouterr().out


def test_scorer_guide(tmp_path, monkeypatch):
    from nasprune import Supernet
    from nasprune.supernet.structure.sample import SampleSupernet

    monkeypatch.chdir(tmp_path)
    scorer, check = blocks("docs/scorers.md", "python")
    path = tmp_path / re.match(r"# (\S+)\n", scorer)[1]
    path.parent.mkdir(parents=True)
    path.write_text(scorer)
    exec(check, {})
    supernet = Supernet.from_model(SampleSupernet().eval(), torch.randn(4, 3, 8, 8))
    assert supernet.trim(budget="60%", scorer="shift", plugins="my_plugins").choices


def test_sparsifier_guide(tmp_path):
    from tests.nets import EXAMPLE, TinyResNet, images

    folder = tmp_path / "sparsifiers"
    folder.mkdir()
    (folder / "wanda.py").write_text(blocks("docs/sparsity.md", "python")[0])
    options = {"data": images(), "sparsifier": "wanda", "plugins": tmp_path, "allow_chance": True}
    found = nasprune.search(TinyResNet(), EXAMPLE, "50%NNZ", **options)
    assert found.report.sparsity.cut <= found.report.sparsity.dense // 2


def test_scorer_table_is_complete():
    from nasprune import registry

    text = (ROOT / "docs/scorers.md").read_text()
    rows = set(re.findall(r"^\| `(\w+)", text.partition("## What there is")[2], flags=re.MULTILINE))
    assert rows == {entry.name for entry in registry.entries("op_scorers")}


def test_readme_example(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example, _, _ = blocks("README.md", "python")
    assert "trials=50" in example
    exec(example.replace("trials=50", "trials=5"), {})
    out = capsys.readouterr().out
    assert "conv1 64 free" in out
    assert "ok=True" in out


def test_readme_supernet(capsys, few_digits, few_paths, one_draw):
    _, example, _ = blocks("README.md", "python")
    exec(example, {})
    out = capsys.readouterr().out
    assert "18 mixed operations in 6 choices" in out
    assert "'edge/5': (" in out


def test_readme_criterion():
    from nasprune.testing import check_criterion

    _, _, criterion = blocks("README.md", "python")
    names: dict[str, object] = {}
    exec(criterion, names)
    check_criterion(names["Peak"])


def test_exporting_from_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(FORMATS, "module", replace(FORMATS["module"], outputs=ran_here))
    exec(blocks("docs/deploying.md", "python")[0], {})
    assert "module, batches of any size; differs from PyTorch by " in capsys.readouterr().out
    assert (
        "self.conv1 = nn.Conv2d(1, 24, 3, padding=1, bias=False)"
        in (tmp_path / "exported" / "digits_small.py").read_text()
    )


def test_a_sweep_from_python(capsys):
    exec(blocks("docs/search.md", "python")[0], {})
    assert capsys.readouterr().out.startswith("[")


def test_own_evaluator(tmp_path, capsys):
    (tmp_path / "my.py").write_text(blocks("docs/search.md", "python")[1])
    options = ["--model", "tests.toys:tiny_net", "--budget", "60%", "--trials", "3", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as caught:
        main(["search", *options, "--evaluator", f"{tmp_path}/my.py:score"])
    assert caught.value.code == 0, capsys.readouterr().err


def test_readme_commands_parse():
    from nasprune.cli.app import program

    known = program().commands
    pages = ("README.md", "docs/criteria.md", "docs/deploying.md", "docs/cli.md", "docs/sparsity.md")
    for name, *arguments in [line for page in pages for line in commands(page)]:
        known[name].make_context(name, arguments)


def test_the_configuration_in_the_docs_is_one(tmp_path):
    from nasprune.cli.app import program

    (tmp_path / "a.toml").write_text(blocks("docs/cli.md", "toml")[0])
    found = program().commands["search"].make_context("search", ["--config", str(tmp_path / "a.toml")]).params
    assert (found["time_limit"], found["controller"]) == (600, "evolution(population=16)")


def test_the_map_names_rooms_and_files_that_are_there():
    text = (ROOT / "docs/architecture.md").read_text()
    table = text.partition("## What each room promises")[2].partition("At the top")[0]
    named = set(re.findall(r"`([\w/]+)/`", table))
    rooms = {path.parent for path in (ROOT / "nasprune").rglob("__init__.py") if "May import:" in path.read_text()}
    assert named == {str(room.relative_to(ROOT / "nasprune")) for room in rooms}
    files = {name for name in re.findall(r"[\w/]+/\w+\.py", text) if "NAME" not in name}
    missing = [name for name in files if not (ROOT / name).exists() and not (ROOT / "nasprune" / name).exists()]
    assert not missing
    assert len(text.splitlines()) < 120


def test_commands_for_several_processes_start_the_program(monkeypatch, capsys):
    lines = [line for path in (ROOT / "docs").glob("*.md") for line in path.read_text().splitlines()]
    typed = [shlex.split(line) for line in lines if line.startswith("torchrun ")]
    assert typed
    for words in typed:
        module = words[words.index("-m") + 1]
        monkeypatch.setattr(sys, "argv", [module, words[words.index("-m") + 2], "--help"])
        with pytest.raises(SystemExit) as caught:
            runpy.run_module(module, run_name="__main__")
        assert caught.value.code == 0
        assert "Usage" in capsys.readouterr().out
