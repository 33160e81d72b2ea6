"""`--json` and `--quiet`: every command takes them, and then stdout holds one object and stderr nothing."""

from __future__ import annotations

import json

import pytest

from nasprune.cli.app import program
from nasprune.cli.screen import MODE, Notes, SearchScreen, answer, say, speak


def commands(group, path=()):
    """Every command, groups of commands left out, with the words that call it."""
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from commands(found, (*path, name))
        else:
            yield (*path, name), found


@pytest.mark.parametrize(("path", "found"), [pytest.param(*pair, id=" ".join(pair[0])) for pair in commands(program())])
def test_every_command_takes_both(path, found):
    options = {option for parameter in found.params for option in parameter.opts}
    assert {"--json", "--quiet"} <= options


def test_a_search_as_json(command, tmp_path):
    line = ["search", "--model", "tests.toys:tiny_net", "--budget", "60%", "--trials", 3, "--out", "run"]
    code, out, err = command(*line, "--json")
    assert code == 0
    assert "No weights were given" in err
    found = json.loads(out)
    assert found["folder"] == "run"
    assert found["report"] == json.loads((tmp_path / "run" / "report.json").read_text())
    code, out, err = command(*line, "--quiet")
    assert (code, err) == (0, "")
    assert "FLOPs (multiply-adds)" in out


def test_plugins_as_json(command):
    code, out, _ = command("list", "--json")
    assert code == 0
    found = json.loads(out)
    assert {"kind": "criterion", "name": "l2", "from": "built-in"} in found["plugins"]
    assert found["failures"] == []


def test_what_is_wrong_is_said_on_stderr_in_any_mode(command):
    code, out, err = command("search", "--budget", "60 bananas", "--json", "--quiet")
    assert (code, out) == (2, "")
    assert "does not parse" in err


def test_the_next_command_speaks_as_usual(command):
    command("list", "--json", "--quiet")
    assert "criterion" in command("list")[1]


def test_nothing_is_said_where_it_is_quiet(capsys):
    speak(as_json=True, quiet=True)
    try:
        say("a line")
        with SearchScreen(None).shown():
            pass
        answer({"a": 1})
        assert isinstance(Notes(), Notes)
    finally:
        speak()
    assert not MODE.json
    captured = capsys.readouterr()
    assert (json.loads(captured.out), captured.err) == ({"a": 1}, "")
