"""Rooms import only what they say, without circles; nothing but definitions runs at import time; files are short.

A room is a folder whose `__init__.py` says what it is for and "May import: ..."; a new file needs no entry anywhere.
"""

from __future__ import annotations

import ast
import re
import statistics
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import nasprune

PACKAGE = Path(nasprune.__file__).parent
ROOT = PACKAGE.parent

BUILT_IN = ("criteria", "controllers", "evaluators")


def name_of(path: Path) -> str:
    """Dotted, without `nasprune.`; "" is the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if "_bundled" not in path.parts}
MODULES = sorted(set(FILES) - {""})


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def walked(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(parsed(path)))


@cache
def imports(path: Path) -> frozenset[str]:
    """Modules of the package that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in walked(path):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "nasprune":
            for alias in node.names:
                full = f"{node.module}.{alias.name}".removeprefix("nasprune.")
                found.add(full if full in FILES else node.module.removeprefix("nasprune").removeprefix("."))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert not alias.name.startswith("nasprune."), f"{path}: write `from nasprune... import ...`"
    return frozenset(found)


def imported_by(module: str) -> set[str]:
    return {name for name in imports(FILES[module]) if name}


ROOMS = {
    name for name, path in FILES.items() if name and path.name == "__init__.py" and "May import:" in path.read_text()
}


def room_of(module: str) -> str:
    """The innermost room that a file lies in; a file at the top is a room of its own."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in ROOMS), module)


def promised(room: str) -> set[str]:
    """The rooms that a room says it may import."""
    text = ast.get_docstring(parsed(FILES[room])) or ""
    return set(re.findall(r"`([\w.]+)`", text.partition("May import:")[2]))


@cache
def arrows() -> dict[str, set[str]]:
    """Room -> the other rooms that its files import."""
    found: dict[str, set[str]] = {}
    for module in MODULES:
        room = room_of(module)
        found.setdefault(room, set()).update({room_of(name) for name in imported_by(module)} - {room})
    return found


def test_every_folder_is_a_room_or_lies_in_one():
    top = {module.split(".")[0] for module in MODULES}
    assert top - ROOMS == {"__main__", "base", "errors", "registry", "testing"}


@pytest.mark.parametrize("room", sorted(ROOMS - {"cli"}))
def test_a_room_imports_what_it_says(room):
    says, does = promised(room), arrows()[room]
    assert does <= says, f"`{room}` imports {sorted(does - says)}; say so in its __init__.py, or better do without"
    assert says <= does, f"`{room}` says that it may import {sorted(says - does)}, and does not; take it out"


def test_rooms_have_no_circles():
    TopologicalSorter(arrows()).prepare()


def test_no_cycles():
    TopologicalSorter({module: imported_by(module) for module in MODULES}).prepare()


def test_few_files_stand_outside_of_rooms():
    assert len(list(PACKAGE.glob("*.py"))) <= 8


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] in BUILT_IN])
def test_implementations_do_not_import_each_other(module):
    from nasprune.registry import BUILT_IN as NAMES

    implementations = {
        path.partition(":")[0].removeprefix("nasprune.") for kind in NAMES.values() for path in kind.values()
    }
    assert not implementations & {name for name in imports(FILES[module]) if name != module}


@pytest.mark.parametrize("module", MODULES)
def test_only_definitions_at_import_time(module):
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    if module == "__main__":
        return
    for node in parsed(FILES[module]).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        assert docstring or typing or isinstance(node, allowed), f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] != "cli"])
def test_only_the_command_line_prints_or_exits(module):
    calls = [ast.unparse(node.func) for node in walked(FILES[module]) if isinstance(node, ast.Call)]
    assert not {"print", "exit", "sys.exit", "input"} & set(calls)


@pytest.mark.parametrize("path", sorted([*ROOT.glob("plugins/*/*.py"), *ROOT.glob("search_spaces/*.py")]), ids=str)
def test_plugins_use_public_names_only(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nasprune"):
            assert node.module == "nasprune"
            assert {alias.name for alias in node.names} <= set(nasprune.__all__)


def test_files_are_short():
    lengths = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
    long = {name: length for name, length in lengths.items() if length > 400}
    assert not long
    assert statistics.median(length for length in lengths.values() if length > 5) <= 150
