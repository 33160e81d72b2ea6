"""`file.py:factory` and `package.module:factory`, and what goes wrong with them."""

from __future__ import annotations

import sys

import pytest

from nasprune.common.factories import call_factory, find_factory
from nasprune.errors import InputError, UnknownNameError


def test_file_may_import_its_neighbour(tmp_path):
    (tmp_path / "neighbour.py").write_text("value = 7")
    (tmp_path / "own.py").write_text("import neighbour\ndef make():\n    return neighbour.value")
    path = list(sys.path)
    assert call_factory(f"{tmp_path / 'own.py'}:make", what="model") == 7
    assert sys.path == path


def test_module():
    from nasprune.models.nets import digits_net

    assert find_factory("nasprune.models:digits_net", what="model") is digits_net


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("nasprune.models:digit_net", UnknownNameError, "did you mean digits_net"),
        ("nasprune.modles:digits_net", InputError, "no module 'nasprune.modles'"),
        ("justaname", InputError, "expected file.py:factory"),
        ("/nowhere/own.py:make", InputError, "no file '/nowhere/own.py'"),
        ("nasprune.data.splits:SHARES", InputError, "is a dict; expected a function"),
    ],
)
def test_bad_specs(spec, error, message):
    with pytest.raises(error, match=message):
        find_factory(spec, what="model")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def make(:\n", "cannot import .*SyntaxError"),
        ("import no_such_thing_at_all\n", "cannot import .*no_such_thing_at_all"),
        ("def make():\n    raise KeyError('gone')\n", "failed: KeyError: 'gone'"),
        ("import sys\nsys.exit(3)\n", "cannot import .*SystemExit: 3"),
        ("import sys\ndef make():\n    sys.exit(3)\n", "failed: SystemExit: 3"),
        ("def make(size):\n    return size\n", "failed: TypeError"),
    ],
)
def test_broken_files_get_one_line(tmp_path, body, message):
    (tmp_path / "broken.py").write_text(body)
    with pytest.raises(InputError, match=message) as caught:
        call_factory(f"{tmp_path / 'broken.py'}:make", what="model")
    assert "\n" not in str(caught.value)


def test_a_module_that_exits_gets_one_line(tmp_path, monkeypatch):
    (tmp_path / "exits_when_imported.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="cannot import 'exits_when_imported': SystemExit: 3"):
        find_factory("exits_when_imported:make", what="model")
