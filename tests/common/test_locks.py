"""One writer for each folder, and no lock is left by whoever is gone."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading

import pytest

from nasprune.common.locks import FILE, held
from nasprune.errors import InputError

HOLD = (
    "import sys, time, pathlib\n"
    "from nasprune.common.locks import held\n"
    "with held(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_leaves_nothing_behind(tmp_path):
    with held(tmp_path / "new" / "run"):
        assert (tmp_path / "new" / "run" / FILE).exists()
    assert not (tmp_path / "new").exists()
    with held(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]


def test_another_process_is_refused_until_the_first_is_killed(tmp_path, holder):
    with (
        pytest.raises(InputError, match=f"process {holder.pid} on .* writes to .* already; wait for it"),
        held(tmp_path),
    ):
        pass
    holder.kill()
    holder.wait()
    assert (tmp_path / FILE).exists()
    with held(tmp_path):
        pass
    assert not (tmp_path / FILE).exists()


def test_the_thread_that_holds_it_may_ask_again_and_no_other(tmp_path):
    found = []

    def other() -> None:
        try:
            with held(tmp_path):
                found.append("held")
        except InputError as error:
            found.append(str(error))

    with held(tmp_path), held(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert (tmp_path / FILE).exists()
    assert f"process {os.getpid()}" in found[0]


def test_a_lock_that_another_host_left_is_taken_over_and_said(tmp_path, caplog):
    (tmp_path / FILE).write_text(json.dumps({"pid": 7, "host": "elsewhere"}))
    with held(tmp_path):
        pass
    assert "process 7 on elsewhere left a lock" in caplog.text


@pytest.mark.parametrize(
    ("owner", "stale"),
    [
        ({"pid": 2**22 + 1, "host": "here"}, True),
        ({"pid": os.getpid(), "host": "here"}, False),
        ({"pid": 7, "host": "elsewhere"}, False),
        ({"pid": -1, "host": "here"}, False),
    ],
)
def test_without_locks_of_the_file_system_the_file_decides(tmp_path, monkeypatch, owner, stale):
    def unknown(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", unknown)
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    (tmp_path / FILE).write_text(json.dumps(owner))
    if stale:
        with held(tmp_path):
            pass
        return
    with pytest.raises(InputError, match=f"process {owner['pid']} on {owner['host']} writes"), held(tmp_path):
        pass
    assert json.loads((tmp_path / FILE).read_text()) == owner


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b'{"pid": "x"}', b"[" * 999])
def test_a_lock_file_that_makes_no_sense_is_taken_over(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with held(tmp_path):
        pass


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / FILE).symlink_to("theirs")
    with (
        pytest.raises(InputError, match="lock' is a link, where a file is to be written"),
        held(tmp_path),
    ):
        pass
    assert (tmp_path / "theirs").read_text() == "theirs"


@pytest.mark.parametrize(("make", "kind"), [(os.mkdir, "a folder"), (os.mkfifo, "a named pipe")])
def test_what_is_no_file_in_its_place_is_named(tmp_path, make, kind):
    make(tmp_path / FILE)
    with pytest.raises(InputError, match=f"lock' is {kind}, where a file is to be written"), held(tmp_path):
        pass
    assert (tmp_path / FILE).exists()
