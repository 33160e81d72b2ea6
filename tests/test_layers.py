"""Imports point down only, nothing but definitions runs at import time, and no file grows past 400 lines."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import nasprune

PACKAGE = Path(nasprune.__file__).parent
ROOT = PACKAGE.parent

# From top to bottom. A module belongs to the row with the longest entry that it is or lies in; it may import from its
# own row and from those below.
LAYERS = (
    ("cli",),
    ("testing", "checkpoint", "supernet.naming", "supernet.storage"),
    (
        "search",
        "supernet.supernet",
        "supernet.health",
        "supernet.checks",
        "supernet.comparison",
        "supernet.pages",
    ),
    ("exploration", "journal", "registry", "finetune", "supernet.training"),
    ("criteria", "controllers", "evaluators", "supernet"),
    (
        "scoring",
        "statistics",
        "selection",
        "shares",
        "repair",
        "recalibrate",
        "knapsack",
        "interplay",
        "damage",
        "fisher",
        "reconstruct",
        "sites",
        "leastsquares",
        "identity",
        "checks",
        "loading",
        "models",
        "data",
    ),
    ("graph.trace", "graph.probe"),
    ("verify", "reference", "surgery", "cost", "weights", "reporting", "consumers", "grams"),
    ("base", "budget", "space", "plan", "report", "graph"),
    ("errors", "pareto", "units", "files", "factories", "layers", "loops", "options", "removal", "calls"),
)
BUILT_IN = ("criteria", "controllers", "evaluators")


def name_of(path: Path) -> str:
    """Dotted, without `nasprune.`; "" is the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if "_bundled" not in path.parts}
MODULES = sorted(set(FILES) - {""})


def imports(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "nasprune":
            for alias in node.names:
                full = f"{node.module}.{alias.name}".removeprefix("nasprune.")
                yield full if full in FILES else node.module.removeprefix("nasprune").removeprefix(".")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert not alias.name.startswith("nasprune."), f"{path}: write `from nasprune... import ...`"


def row_of(module: str) -> int:
    rows = {entry: number for number, row in enumerate(LAYERS) for entry in row}
    found = [entry for entry in rows if module == entry or module.startswith(f"{entry}.")]
    assert found, f"`{module}` has no row in LAYERS; add it where its imports allow"
    return rows[max(found, key=len)]


def test_the_table_has_ten_rows_and_no_stale_entry():
    assert len(LAYERS) == 10
    for row in LAYERS:
        for entry in row:
            assert any(module == entry or module.startswith(f"{entry}.") for module in MODULES), entry


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    for imported in imports(FILES[module]):
        if imported:
            assert row_of(module) <= row_of(imported), f"`{module}` must not import `{imported}`, which lies above it"


def test_no_cycles():
    TopologicalSorter({module: {name for name in imports(FILES[module]) if name} for module in MODULES}).prepare()


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
    if module == "cli.__main__":
        return
    for node in ast.parse(FILES[module].read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        assert docstring or typing or isinstance(node, allowed), f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] != "cli"])
def test_only_the_command_line_prints_or_exits(module):
    calls = [
        ast.unparse(node.func) for node in ast.walk(ast.parse(FILES[module].read_text())) if isinstance(node, ast.Call)
    ]
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
