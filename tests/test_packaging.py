"""The wheel, built from the sdist, holds what git holds, and works from an empty directory in a clean environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOMES = {"nasprune/": "nasprune/", "plugins/": "nasprune/_bundled/plugins/"}
HOMES["search_spaces/"] = "nasprune/_bundled/search_spaces/"

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")


def _run(*command, cwd: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    run = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Checkout -> sdist -> unpacked -> wheel."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    source = next(path for path in folder.iterdir() if path.is_dir())
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory) -> Path:
    """The `bin` folder of an environment with the wheel; dependencies are looked up in the one that runs the tests."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if uv := shutil.which("uv", path=here):
        _run(uv, "pip", "install", "--offline", "--no-deps", "--python", python, wheel, cwd=folder)
    else:
        _run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel, cwd=folder)
    paths = sysconfig.get_paths()
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text("\n".join(dict.fromkeys([paths["purelib"], paths["platlib"]])))
    return folder / "bin"


def test_the_wheel_holds_what_git_holds(wheel):
    listed = _run("git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *HOMES, cwd=ROOT).splitlines()
    present = [name for name in listed if (ROOT / name).exists()]
    expected = {HOMES[home] + name.removeprefix(home) for name in present for home in HOMES if name.startswith(home)}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected


SEARCH = "search --model nasprune.models:digits_net --criterion fpgm --budget 60% --trials 3"
COMMANDS = """
import runpy, sys
script, *lines = sys.argv[1:]
for line in lines:
    sys.argv = [script, *line.split()]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert not end.code, end.code
    print("====")
import nasprune
print(nasprune.__file__)
"""


@pytest.fixture(scope="module")
def shown(clean, tmp_path_factory) -> tuple[Path, list[str]]:
    """An empty directory, and what commands print there one after the other, with where the package was found."""
    folder = tmp_path_factory.mktemp("empty")
    words = [clean / "python", "-c", COMMANDS, clean / "nasprune", "list --check", SEARCH]
    return folder, _run(*words, cwd=folder).split("====\n")


def test_the_script_is_installed(clean, tmp_path):
    assert _run(clean / "nasprune", "--version", cwd=tmp_path).strip()


def test_list_from_an_empty_directory(clean, shown):
    _, (out, *_) = shown
    for name in ("fpgm", "bn_scale", "widths"):
        line = next(line for line in out.splitlines() if f" {name} " in line)
        assert str(clean.parent) in line
        assert "_bundled" in line


def test_a_search_with_a_bundled_plugin_from_an_empty_directory(clean, shown):
    folder, (_, out, where) = shown
    assert "proof    passed" in out
    report = json.loads((folder / "runs" / "digits_net-60pct" / "report.json").read_text())
    assert report["settings"]["criterion"] == "fpgm"
    assert where.startswith(str(clean.parent))
