"""A record of trials that is damaged or not ours is refused by its line and left as it is."""

from __future__ import annotations

import json

import pytest

from nasprune.common.seals import digest_of
from nasprune.cost.budget import Cost
from nasprune.errors import InputError
from nasprune.run.journal import FILE, Journal
from nasprune.run.recorded import settings_in, trials_in
from nasprune.space.choices import Decision
from nasprune.space.trials import Trial

SETTINGS = {"seed": "0"}
FIRST = b'{"settings": {"seed": "0"}}\n'
ROUND = b'{"round": 0, "frozen": {}}\n'


def line(index: int, **changes: object) -> bytes:
    """A trial's line; changed values get the right check again."""
    record = json.loads(Trial(index, Decision.of({"a": index + 1}), Cost(1, 2, 3), 0.5, 0.1).to_json())
    if changes:
        record = {name: value for name, value in {**record, **changes}.items() if name != "check"}
        record["check"] = digest_of(record)[:16]
    return json.dumps(record).encode() + b"\n"


HEAD, REST = FIRST + ROUND + line(0), line(2)


@pytest.mark.parametrize(
    ("content", "number", "field"),
    [
        (HEAD + b"{garbage\n" + REST, 4, "Expecting property name"),
        (HEAD + b"\0" * 64 + b"\n" + REST, 4, "Expecting value"),
        (HEAD + b"\xff\xfe\n" + REST, 4, "UTF-8"),
        (HEAD + b"\n" + REST, 4, "Expecting value"),
        (HEAD + b"7\n", 4, "a mapping"),
        (HEAD + b"[" * 100_000 + b"\n", 4, "nested too deeply"),
        (HEAD + '{"a": "\u2028"}\n'.encode(), 4, "`index` is not there"),
        (FIRST + line(0), 2, "opens round 0"),
        (FIRST + b'{"round": 0}\n' + line(0), 2, "`frozen` is not there"),
        (FIRST + b'{"round": 1, "frozen": {}}\n' + line(0), 2, "round 0, which follows"),
        (HEAD + b'{"round": 2, "frozen": {}}\n', 4, "round 1, which follows"),
        (FIRST + FIRST + ROUND + line(0), 2, "opens round 0"),
        (HEAD + line(1, score=None), 4, "`score`: expected a finite number"),
        (HEAD + line(1, score="high"), 4, "`score`"),
        (HEAD + line(1, score=float("nan")), 4, "`score`"),
        (HEAD + line(1, score=float("inf")), 4, "`score`"),
        (HEAD + line(1, score=10**400), 4, "a number of 401 digits"),
        (HEAD + line(1, seconds=float("nan")), 4, "`seconds`"),
        (HEAD + line(1, seconds=-1), 4, "`seconds`: expected a finite number from 0"),
        (HEAD + line(1, decision={"a": "z"}), 4, r"`decision\.a`"),
        (HEAD + line(1, decision={"a": 9}), 4, "`digest`"),
        (HEAD + line(1, cost={"flops": 1, "params": 1}), 4, r"`cost\.activations` is not there"),
        (HEAD + line(77), 4, "trial 1, which follows"),
        (HEAD + line(0), 4, "trial 1, which follows"),
        (HEAD + line(1).replace(b"0.5", b"0.9"), 4, "does not match its `check`"),
        (HEAD + line(1).replace(b', "check"', b', "chuck"'), 4, "`check` is not there"),
        (HEAD + b"of another tool", 4, "unfinished"),
        (b'{"my": "results"}', 1, "settings of a search"),
        (b'{"my": "results"}\n', 1, "settings of a search"),
        (b"\x93NUMPY", 1, "settings of a search"),
    ],
)
def test_damage_is_refused_by_its_line_and_nothing_is_changed(tmp_path, content, number, field):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(InputError, match=field) as caught:
        Journal(tmp_path, SETTINGS)
    assert str(caught.value).startswith(f"line {number} of '{tmp_path / FILE}' is damaged")
    assert (tmp_path / FILE).read_bytes() == content


@pytest.mark.parametrize("torn", [line(1)[:-1], line(1)[:5], b"{", b"", b'{"round": 1, "fr', line(1)[:40] + b"\0" * 99])
def test_a_line_that_a_kill_left_unfinished_is_dropped(tmp_path, torn):
    (tmp_path / FILE).write_bytes(HEAD + torn)
    assert len(Journal(tmp_path, SETTINGS).round(0, {})) == 1
    assert (tmp_path / FILE).read_bytes() == HEAD


@pytest.mark.parametrize("content", [b"", FIRST[:9], FIRST, FIRST + ROUND])
def test_a_run_that_was_killed_before_its_first_trial_begins_again(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    assert Journal(tmp_path, SETTINGS).round(0, {}) == ()
    assert (tmp_path / FILE).read_bytes() == FIRST + ROUND


@pytest.mark.parametrize("target", ["theirs", "nowhere"])
def test_a_link_is_not_followed(tmp_path, target):
    (tmp_path / "theirs").write_bytes(HEAD)
    (tmp_path / FILE).symlink_to(target)
    with pytest.raises(InputError, match="is a link, where a file is to be written"):
        Journal(tmp_path, SETTINGS)
    assert (tmp_path / "theirs").read_bytes() == HEAD
    assert not (tmp_path / "nowhere").exists()


def test_lines_of_somebody_else_in_between_are_seen(tmp_path):
    journal = Journal(tmp_path, SETTINGS)
    journal.round(0, {})
    with (tmp_path / FILE).open("ab") as file:
        file.write(b"mine\n")
    with pytest.raises(InputError, match="somebody else wrote to"):
        journal.add(Trial(0, Decision.of({"a": 1}), Cost(1, 2, 3), 0.5, 0.1))
    assert (tmp_path / FILE).read_bytes() == FIRST + ROUND + b"mine\n"


def test_a_journal_that_was_ended_writes_no_more(tmp_path):
    journal = Journal(tmp_path, SETTINGS)
    journal.round(0, {})
    journal.end()
    journal.add(Trial(0, Decision.of({"a": 1}), Cost(1, 2, 3), 0.5, 0.1))
    assert (tmp_path / FILE).read_bytes() == FIRST + ROUND


def test_what_a_folder_records(tmp_path):
    assert settings_in(tmp_path) is None
    assert trials_in(tmp_path) == 0
    (tmp_path / FILE).write_bytes(HEAD + line(1))
    assert settings_in(tmp_path) == SETTINGS
    assert trials_in(tmp_path) == 2
