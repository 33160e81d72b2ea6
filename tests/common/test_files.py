"""Reading never waits, and writing never follows a link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nasprune.common.files import check_places, content_of, drop_empty, make_folder, write_all
from nasprune.errors import InputError


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path, kind in (
        (tmp_path / "pipe", "a named pipe"),
        (tmp_path / "folder", "a folder"),
        ("/dev/zero", "a device"),
    ):
        with pytest.raises(InputError, match=f"cannot read weights .*: it is {kind}; give a file"):
            content_of(Path(path), "weights", "give a file", most=10)
    with pytest.raises(InputError, match="No such file"):
        content_of(tmp_path / "none", "weights", "give a file", most=10)
    with pytest.raises(InputError, match="null byte"):
        content_of(Path("a\0b"), "weights", "give a file", most=10)


def test_a_file_may_be_a_link_for_reading_and_has_a_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert content_of(tmp_path / "link", "it", "stop", most=5) == b"12345"
    with pytest.raises(InputError, match="it has 5 bytes, at most 4"):
        content_of(tmp_path / "file", "it", "stop", most=4)


def test_links_in_the_way_of_writing_are_replaced_not_followed(tmp_path):
    (tmp_path / "theirs").write_bytes(b"theirs")
    for name in ("a", ".a.partial"):
        (tmp_path / name).symlink_to("theirs")
    write_all(tmp_path, {"a": b"ours"})
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    assert not (tmp_path / "a").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "theirs"}


def test_places_that_a_file_cannot_take(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").touch()
    check_places(tmp_path, ("file", "none"))
    check_places(tmp_path / "none", ("file",))
    for name in ("folder", "link"):
        with pytest.raises(InputError, match=f"is a {name}, where a file is to be written; move it away"):
            check_places(tmp_path, (name,))


def test_a_folder_that_cannot_be_made_says_why(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="link': it is a link to nothing; choose another --out"):
        make_folder(tmp_path / "link")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="below': Not a directory; choose another --out"):
        make_folder(tmp_path / "file" / "below")


def test_folders_that_were_made_are_dropped_as_far_as_they_are_empty(tmp_path):
    made = make_folder(tmp_path / "a" / "b" / "c")
    (tmp_path / "a" / "mine").touch()
    drop_empty(made)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine"]
