"""Every block of code in the guides runs as it stands, in the order of its page, and no link of the docs is dead.

A block that begins with the name of a file is that file; what says `# needs` is of another tool; `py`
instead of `python` needs what only the reader has, and is read. Lines of
the shell run where their network is bundled or written above, and else are read by the command's parser.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from nasprune.cli import main
from tests.conftest import _fewer
from tests.test_docs import ROOT, lines_of
from tests.toys import tiny_net

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w/]+\.py)\n")
NEEDS = re.compile(r"# needs (\w+)\n")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
ELSEWHERE = {"architecture", "cli", "criteria", "deploying", "scorers", "search", "supernets"}
"""Pages whose blocks have tests of their own."""
PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.md") if "```" in path.read_text())
GUIDES = [name for name in PAGES if name not in ELSEWHERE]


def fenced(name: str) -> list[tuple[str, str]]:
    """Language and contents of the blocks of a page, those in tabs too."""
    text = (ROOT / "docs" / f"{name}.md").read_text()
    return [
        (language, re.sub(rf"^{indent}", "", body, flags=re.MULTILINE))
        for indent, language, body in FENCE.findall(text)
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder, whose modules can be imported and are forgotten afterwards; a tiny bundled network."""
    monkeypatch.setattr("nasprune.models.digits_net", tiny_net)
    monkeypatch.setattr("sklearn.datasets.load_digits", partial(_fewer, 160))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def run_in_shell(line: list[str], capsys) -> None:
    """Runs what can be run here, and parses the rest."""
    from nasprune.cli.app import program

    name, *arguments = line
    places = [each.partition(":")[0] for each in arguments]
    bundled = "nasprune.models:digits_net" in arguments
    if bundled or any(Path(place).exists() for place in places if place.startswith(("my_net", "runs/"))):
        short = ["--trials", "2"] if name == "search" and "--strategy" not in arguments else []
        if "--controller" in arguments:
            short = []
        with pytest.raises(SystemExit) as caught:
            main([name, *arguments, *short])
        assert caught.value.code == 0, capsys.readouterr().err
    else:
        program().commands[name].make_context(name, arguments)


@pytest.mark.parametrize("name", GUIDES)
def test_every_block_runs(name, folder, capsys):
    names: dict[str, object] = {}
    for language, body in fenced(name):
        file, needed = FILE.match(body), NEEDS.match(body)
        if language == "python" and file is not None:
            (folder / file[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / file[1]).write_text(body)
        elif language == "python" and needed is not None:
            ast.parse(body)  # run below
        elif language == "python":
            exec(compile(body, f"docs/{name}.md", "exec"), names)
        elif language == "py":
            ast.parse(body)  # needs what only the reader has
        elif language == "sh":
            for line in lines_of(body):
                run_in_shell(line, capsys)
        else:
            pytest.fail(f"a block in {language!r} is not run by anything")


@pytest.mark.slow
@pytest.mark.parametrize("package", ["torch_pruning", "nni", "modelopt"])
def test_lines_of_other_tools_run(package, folder):
    """In a process of their own, since some change torch as they are imported."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed; `make bench-cifar` does that")
    bodies = [body for _, body in fenced("coming_from")]
    (folder / "net.py").write_text(bodies[0])
    (line,) = [body for body in bodies if (needed := NEEDS.match(body)) is not None and needed[1] == package]
    run = subprocess.run([sys.executable, "-c", line], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_pages_with_tests_of_their_own_are_there():
    assert set(PAGES) > ELSEWHERE


def shown(path: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text()))


def anchors(path: Path) -> set[str]:
    """What headings of a page can be linked to as."""
    text = shown(path)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_no_link_is_dead(page):
    for link in LINK.findall(shown(ROOT / page)):
        place, _, anchor = link.partition("#")
        if place.startswith("https://"):
            continue
        target = (ROOT / page).parent / place if place else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_on_the_site():
    listed = set(re.findall(r"(\w+)\.md", (ROOT / "mkdocs.yml").read_text()))
    assert listed == {path.stem for path in (ROOT / "docs").glob("*.md")} | {"index"}
