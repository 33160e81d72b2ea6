from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nasprune import registry
from nasprune.errors import InputError, PluginError, UnknownNameError
from nasprune.run.names import search_space
from nasprune.supernet.genotype.naming import supernet_space

CRITERION = """
import torch
from nasprune import Criterion

class First(Criterion):
    \"\"\"Keeps the first units.\"\"\"

    def score(self, group, context):
        return -torch.arange(group.width, dtype=torch.float32)
"""
ALL = [(entry.kind, entry.name) for kind in registry.KINDS for entry in registry.entries(kind)]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_every_first_party_name_loads(kind, name):
    assert callable(registry.load(kind, name))


def test_the_expected_names_are_there():
    names = {kind: {entry.name for entry in registry.entries(kind)} for kind in registry.KINDS}
    assert names["criteria"] >= {"l1", "l2", "random", "fpgm", "bn_scale"}
    assert names["controllers"] >= {"auto", "global", "uniform", "random", "evolution", "nni:TPE", "optuna:TPE"}
    assert names["evaluators"] >= {"importance", "accuracy", "kl", "loss"}
    assert names["search_spaces"] >= {"widths"}


@pytest.mark.parametrize("place", ["criteria/first.py", "first.py"])
def test_a_file_in_a_plugin_folder_is_found_by_its_name(tmp_path, place):
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text(CRITERION)
    entry = registry.find("criteria", "first", tmp_path)
    assert entry.origin == str(file)
    assert entry.load().__name__ == "First"
    assert registry.load("criteria", "first", [tmp_path]) is entry.load()
    assert "first" not in {entry.name for entry in registry.entries("controllers", tmp_path)}


def test_a_search_space_file_gives_its_build_function(tmp_path):
    (tmp_path / "empty.py").write_text(
        "from nasprune import SearchSpace\ndef build(graph):\n    return SearchSpace(())\n"
    )
    assert search_space(None, "empty", plugins=tmp_path).size == 1


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import nowhere_to_be_found\n", "ModuleNotFoundError"),
        ("class First(:\n", "SyntaxError"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("x = 1\n", "must hold exactly one class that implements `nasprune.Criterion`, found none"),
        (CRITERION + "class Second(First):\n    pass\n", "found First, Second"),
    ],
)
def test_a_broken_plugin_costs_only_itself(tmp_path, source, cause):
    (tmp_path / "criteria").mkdir()
    (tmp_path / "criteria" / "broken.py").write_text(source)
    (tmp_path / "criteria" / "whole.py").write_text(CRITERION)
    assert registry.load("criteria", "whole", tmp_path)
    assert registry.load("criteria", "l2", tmp_path)
    with pytest.raises(PluginError, match=r"broken\.py") as caught:
        registry.load("criteria", "broken", tmp_path)
    assert cause in str(caught.value)


def test_listing_runs_no_plugin(tmp_path):
    (tmp_path / "noisy.py").write_text("raise RuntimeError\nclass N(Criterion): ...\n")
    assert "noisy" in {entry.name for entry in registry.entries("criteria", tmp_path)}


def test_a_name_declared_twice_names_both_origins(tmp_path):
    (tmp_path / "criteria").mkdir()
    (tmp_path / "criteria" / "l2.py").write_text(CRITERION)
    with pytest.raises(PluginError, match=r"declared twice, by built-in and by .*l2\.py"):
        registry.find("criteria", "l2", tmp_path)
    assert registry.load("criteria", "l1", tmp_path)


def test_the_current_directory_is_not_searched(tmp_path, monkeypatch):
    for folder in (tmp_path, tmp_path / "plugins" / "criteria"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "first.py").write_text(CRITERION)
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError):
        registry.find("criteria", "first")


@pytest.mark.parametrize(("kind", "name"), [("criteria", "l22"), ("controllers", "nni:TPF"), ("evaluators", "acuracy")])
def test_an_unknown_name_gets_the_nearest(kind, name):
    with pytest.raises(UnknownNameError, match="did you mean"):
        registry.find(kind, name)


def test_unknown_kinds_and_folders_are_refused(tmp_path):
    with pytest.raises(UnknownNameError):
        registry.entries("pruners")
    with pytest.raises(InputError, match="does not exist"):
        registry.entries("criteria", tmp_path / "nowhere")


def test_a_users_own_attribute_resolves():
    assert registry.load("criteria", "nasprune.criteria.l1:L1").__name__ == "L1"
    with pytest.raises(PluginError, match="ModuleNotFoundError"):
        registry.load("criteria", "nowhere_at_all:Thing")
    with pytest.raises(PluginError, match="expected exactly one class"):
        registry.load("criteria", "nasprune.controllers.uniform:Uniform")


def test_an_installed_package_is_found_through_its_entry_point(tmp_path):
    package, target = tmp_path / "package", tmp_path / "target"
    (package / "prune_first").mkdir(parents=True)
    (package / "prune_first" / "__init__.py").write_text(CRITERION)
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "prune-first"\nversion = "1.0"\n'
        '[project.entry-points."nasprune.criteria"]\nfirst = "prune_first:First"\n'
    )
    _install(package, target)
    code = (
        "from nasprune import registry; entry = registry.find('criteria', 'first');"
        "print(entry.origin, entry.load().__name__)"
    )
    paths = os.pathsep.join([str(target), str(Path(registry.__file__).parents[1])])
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == "package prune-first First", run.stderr


def _install(package: Path, target: Path) -> None:
    """Builds a wheel with the build backend at hand and installs it into a folder, without a network."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"], cwd=package, check=True)
    (wheel,) = (package / "dist").glob("*.whl")
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        zipfile.ZipFile(wheel).extractall(target)
        return
    options = ["--offline", "--no-deps", "--python", sys.executable, "--target", str(target)]
    subprocess.run([uv, "pip", "install", "--quiet", *options, str(wheel)], check=True)


def test_spaces_of_both_kinds_share_a_folder(tmp_path):
    folder = tmp_path / "search_spaces"
    folder.mkdir()
    (folder / "mine.py").write_text("def build(graph):\n    return None\n")
    (folder / "cells.py").write_text("from nasprune import SupernetSpace\n\n\nclass Cells(SupernetSpace):\n    pass\n")
    for kind, own, bundled in (
        ("search_spaces", "mine", {"widths"}),
        ("supernet_spaces", "cells", {"darts", "nasbench201"}),
    ):
        names = {entry.name for entry in registry.entries(kind, tmp_path)}
        assert names == bundled | {own}


@pytest.mark.parametrize(
    ("kind", "spec", "taken"),
    [
        ("criteria", "apoz(threshold=low)", ()),
        ("controllers", "evolution(sample=1.5)", ("problem", "seed")),
        ("strategies", "soft(times=often)", ("task",)),
        ("strategies", "soft(asymptotic=1)", ("task",)),
        ("op_scorers", "nwot(images=[64])", ()),
        ("sparsifiers", "magnitude(refit=maybe)", ()),
        ("search_spaces", "widths(blocks=some)", ("graph",)),
        ("supernet_spaces", "darts(ops=3)", ()),
    ],
)
def test_an_option_of_another_kind_than_declared_is_refused(kind, spec, taken):
    for bound in (registry.with_keywords, registry.with_options):
        with pytest.raises(InputError, match=r"option `\w+` must be .*, got .*; (write for example|give another)"):
            bound(kind, spec, None, taken)


def test_options_in_python_are_held_to_the_same_kinds():
    with pytest.raises(InputError, match="`min_share` must be a number, got the str 'low'"):
        search_space(None, min_share="low")


def test_a_supernet_space_takes_options():
    assert supernet_space("darts(ops=['none', 'skip_connect'])").cells["normal"].ops == (
        "none",
        "skip_connect",
    )
    with pytest.raises(UnknownNameError, match="nasbench201"):
        supernet_space("nasbench")
    with pytest.raises(InputError, match="refuses its options"):
        supernet_space("darts(ops=['none', 'none'])")
