"""`--config`: every option from a TOML file, what a run writes is accepted back, and what is wrong is one line."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from nasprune.cli.app import program
from nasprune.cli.config import _kinds, written

MODEL = 'model = "tests.toys:tiny_net"\nbudget = "60%"\ntrials = 3\n'


def parsed(*words):
    """The parameters of the command as it would get them."""
    group, words = program(), list(words)
    while hasattr(group, "commands"):
        group = group.commands[words.pop(0)]
    return group.make_context(group.name, words).params


def test_what_a_run_writes_gives_the_same_run(command, tmp_path):
    (tmp_path / "mine.toml").write_text(MODEL + 'include = ["layer*"]\n')
    assert command("search", "--config", "mine.toml", "--out", "first", "--seed", 1)[0] == 0
    record = tomllib.loads((tmp_path / "first" / "run.toml").read_text())
    assert (record["seed"], record["include"], record["criterion"], record["out"]) == (1, ["layer*"], "l2", "first")
    assert command("search", "--config", "first/run.toml", "--out", "second")[0] == 0
    plans = [(tmp_path / name / "plan.json").read_bytes() for name in ("first", "second")]
    assert plans[0] == plans[1]
    report = json.loads((tmp_path / "second" / "report.json").read_text())
    assert report["settings"]["space include"] == "('layer*',)"
    again = (tmp_path / "second" / "run.toml").read_text().replace("second", "first")
    assert again == (tmp_path / "first" / "run.toml").read_text()


def test_what_is_typed_goes_before_the_file(tmp_path):
    (tmp_path / "a.toml").write_text('seed = 3\nbudget = "50%"\ntime-limit = 5\npolish = true\n')
    found = parsed("search", "--config", str(tmp_path / "a.toml"), "--seed", "4")
    assert [found[name] for name in ("seed", "budget", "time_limit", "polish")] == [4, "50%", 5.0, True]


COMMANDS = ("search", "finetune", "trim", "supernet train", "inspect", "demo", "export", "compress", "quantise")


@pytest.mark.parametrize("words", [tuple(name.split()) for name in COMMANDS])
def test_every_option_of_a_command_that_works_may_stand_in_a_file(words, tmp_path):
    group = program()
    for word in words:
        group = group.commands[word]
    options = [p for p in group.params if p.name not in ("config", "help")]
    kinds = _kinds(group.make_context(group.name, [], resilient_parsing=True))
    plain = {int: 3, float: 0.5, list: ["some"], str: "some"}
    samples = {p.name: not p.default if kinds[p.name] is bool else plain[kinds[p.name]] for p in options}
    keys = {"as_json": "json"}
    lines = [f"{keys.get(name, name.replace('_', '-'))} = {json.dumps(value)}" for name, value in samples.items()]
    (tmp_path / "all.toml").write_text("\n".join(lines))
    found = parsed(*words, "--config", str(tmp_path / "all.toml"))
    for name, wanted in samples.items():
        value = found[name]
        texts = [str(part) for part in value] if isinstance(value, list) else value
        assert (str(texts) if isinstance(value, Path) else texts) == wanted, name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('bugdet = "60%"', "unknown option in 'a.toml' 'bugdet': did you mean budget"),
        ("trials = 3.5", "'trials' in 'a.toml' must be a whole number, got 3.5"),
        ("trials = true", "'trials' in 'a.toml' must be a whole number, got True"),
        ("budget = 60", "'budget' in 'a.toml' must be text in quotes, got 60"),
        ("include = [1]", "'include' in 'a.toml' must be a list of texts"),
        ("polish = 'yes'", "'polish' in 'a.toml' must be true or false"),
        ("[search]\nbudget = '60%'", "unknown option in 'a.toml' 'search'"),
        ("config = 'b.toml'", "unknown option in 'a.toml' 'config'"),
        ("budget =", "'a.toml' is no TOML"),
        ("\udcff", "'a.toml' is no TOML"),
        (None, "cannot read the configuration 'a.toml'"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(command, tmp_path, text, message):
    if text is not None:
        (tmp_path / "a.toml").write_bytes(text.encode(errors="surrogateescape"))
    code, out, err = command("search", "--config", "a.toml")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_a_file_of_the_users_own_in_the_folder_is_left_alone(command, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.toml").write_text(MODEL)
    code, _, err = command("search", "--config", "run/run.toml", "--out", "run")
    assert code == 0
    assert "is yours and stays as it is" in err
    assert (tmp_path / "run" / "run.toml").read_text() == MODEL


@dataclass(frozen=True)
class _Options:
    name: str
    path: Path
    parts: tuple[str, ...] = ()
    rate: float | None = None
    flag: bool = False


def test_names_of_any_kind_come_back():
    name = 'a "quoted" \\ name\twith\nlines, ü and \x7f'
    text = written("search", _Options(name, Path("ü/x"), ("a", "b"), 1e-3, True), {})
    assert tomllib.loads(text) == {"name": name, "path": "ü/x", "parts": ["a", "b"], "rate": 1e-3, "flag": True}
    assert tomllib.loads(written("search", _Options("x", Path("\udcff")), {})) == {"name": "x", "flag": False}
