"""The public names: lazy, complete, and not shadowed by submodules of the same name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nasprune


def _python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_import_loads_no_torch():
    heavy = "{'torch', 'numpy', 'networkx', 'nni', 'typer', 'rich'} & set(sys.modules)"
    assert _python(f"import sys, nasprune; print(sorted({heavy}))") == "[]"


def test_help_loads_nothing_heavy():
    heavy = "{'torch', 'numpy', 'networkx', 'nni', 'vl_convert', 'onnx'} & set(sys.modules)"
    code = (
        f"import sys; from nasprune.cli.app import app; app(['--help'], standalone_mode=False); print(sorted({heavy}))"
    )
    assert _python(code).splitlines()[-1] == "[]"


def test_types_are_told_to_checkers():
    assert (Path(nasprune.__file__).parent / "py.typed").is_file()


def test_no_room_has_the_name_of_a_public_function():
    rooms = {path.stem for path in Path(nasprune.__file__).parent.iterdir()}
    assert not rooms & set(nasprune.__all__)


def test_unknown_name_is_refused_with_the_public_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'serach'; public names: .*search"):
        nasprune.serach  # noqa: B018


def test_version_is_a_string():
    assert nasprune.__version__.count(".") >= 1


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(nasprune.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {f"{node.module}.{alias.name}" for node in block.body for alias in node.names}
    assert imported == {f"nasprune.{home}.{name}" for name, home in nasprune._HOME_OF.items()}


def test_every_public_name_resolves_and_tracing_and_counting_give_no_warnings():
    code = (
        "import warnings; warnings.simplefilter('error'); import torch, nasprune;"
        "assert all(hasattr(nasprune, name) for name in nasprune.__all__);"
        "model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)).eval();"
        "print(nasprune.search(model, torch.zeros(1, 3, 8, 8), '60%', trials=3).report.proof.ok)"
    )
    assert _python(code) == "True"
