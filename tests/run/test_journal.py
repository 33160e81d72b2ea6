from __future__ import annotations

import errno
import json
import os

import pytest

from nasprune.cost.budget import Cost
from nasprune.errors import InputError
from nasprune.run.journal import FILE, Journal
from nasprune.space.choices import Decision
from nasprune.space.trials import Trial

SETTINGS = {"budget": "2 GFLOPs", "seed": "0"}


def trial(index: int) -> Trial:
    return Trial(index, Decision.of({"a": index}), Cost(index, 2, 3), index / 3, 0.5)


def filled(folder, count=3):
    journal = Journal(folder, SETTINGS)
    assert journal.round(0, {}) == ()
    for index in range(count):
        journal.add(trial(index))
    return journal


def test_trials_are_read_back_as_they_were(tmp_path):
    filled(tmp_path / "run")
    again = Journal(tmp_path / "run", SETTINGS)
    assert again.round(0, {}) == tuple(trial(index) for index in range(3))
    assert not again.closed(0)


def test_a_torn_last_line_is_dropped_and_writing_goes_on(tmp_path):
    filled(tmp_path)
    path = tmp_path / FILE
    with path.open("ab") as file:
        file.write(trial(3).to_json().encode()[:40])
    again = Journal(tmp_path, SETTINGS)
    assert len(again.round(0, {})) == 3
    again.add(trial(3))
    assert len(Journal(tmp_path, SETTINGS).round(0, {})) == 4
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_rounds_are_kept_apart(tmp_path):
    journal = filled(tmp_path)
    journal.round(1, {"a": "broke"})
    journal.add(trial(0))
    again = Journal(tmp_path, SETTINGS)
    assert again.closed(0)
    assert len(again.round(0, {})) == 3
    assert again.round(1, {"a": "broke"}) == (trial(0),)
    with pytest.raises(InputError, match="froze other groups"):
        again.round(1, {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**SETTINGS, "seed": "1"}, "seed: 0 there, 1 now"),
        ({"budget": "2 GFLOPs"}, "seed: 0 there, not set now"),
    ],
)
def test_the_folder_of_another_run_is_refused(tmp_path, settings, message):
    filled(tmp_path)
    with pytest.raises(InputError, match=message):
        Journal(tmp_path, settings)


@pytest.mark.parametrize(("name", "content"), [(FILE, "hello\n"), (FILE, "[1]\n"), ("plan.json", "{}")])
def test_a_folder_that_holds_something_else_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match="choose another"):
        Journal(tmp_path, SETTINGS)
    assert (tmp_path / name).read_text() == content


def test_a_full_disk_leaves_whole_lines_and_one_sentence(tmp_path, monkeypatch):
    journal = filled(tmp_path)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr("nasprune.run.journal.SYNC_SECONDS", -1.0)
    with pytest.raises(InputError, match="No space left on device"):
        journal.add(trial(3))
    monkeypatch.undo()
    assert len(Journal(tmp_path, SETTINGS).round(0, {})) == 3


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match="cannot write"):
        Journal(tmp_path / "run", SETTINGS)


def test_without_a_folder_nothing_is_kept():
    journal = Journal(None, SETTINGS)
    assert journal.round(0, {}) == ()
    journal.add(trial(0))


def test_a_record_without_trials_stops_nobody(tmp_path):
    Journal(tmp_path, SETTINGS).round(0, {})  # as after a kill
    other = Journal(tmp_path, {**SETTINGS, "seed": "1"})
    assert other.round(0, {}) == ()
    other.add(trial(0))
    with pytest.raises(InputError, match=r"another run \(seed: 1 there, 0 now\)"):
        Journal(tmp_path, SETTINGS)


def test_an_error_drops_a_record_without_trials_only(tmp_path):
    (tmp_path / "mine.txt").touch()
    for folder, count in ((tmp_path / "empty", 0), (tmp_path, 0), (tmp_path / "filled", 2)):
        journal = filled(folder, count)
        with pytest.raises(RuntimeError), journal.dropped_if_empty():
            raise RuntimeError
    assert not (tmp_path / "empty").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "filled"}
    assert len(Journal(tmp_path / "filled", SETTINGS).round(0, {})) == 2
