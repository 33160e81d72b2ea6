"""Ctrl-C and SIGTERM: one line, the exit code 130 or 143, and what was kept."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import nasprune
from nasprune.cli import interrupts, main
from nasprune.cli.interrupts import Interrupts, Stopped, writing
from tests.forks import forked
from tests.toys import tiny_net

SLOW = (
    "import time\ndef score(model):\n    time.sleep(0.3)\n    return float(sum(p.sum() for p in model.parameters()))\n"
)
SEARCH = ["search", "--model", "tests.toys:tiny_net", "--budget", "60%", "--controller", "random", "--trials", "9"]


@pytest.fixture
def left(monkeypatch):
    """Exit codes of processes that were ended at once."""
    codes = []

    def leave(code):
        codes.append(code)
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    return codes


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_before_anything_is_held_the_process_ends_at_once(left, capfd, number, code, word):
    watched = Interrupts()
    before = [signal.getsignal(one) for one in interrupts.WATCHED]
    with watched.watching(), pytest.raises(SystemExit):
        signal.raise_signal(number)
    assert left == [code]
    assert capfd.readouterr().err == f"nasprune: {word}; {interrupts.AGAIN}\n"
    assert [signal.getsignal(one) for one in interrupts.WATCHED] == before


def test_a_signal_after_the_last_word_says_so(left, capfd, monkeypatch):
    at_exit = []
    monkeypatch.setattr(interrupts.atexit, "register", at_exit.append)
    before = [signal.getsignal(one) for one in interrupts.WATCHED]
    try:
        watched = Interrupts()
        with watched.watching(to_the_end=True):
            pass
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
        (end,) = at_exit
        end()
        watched.ends_with(2)
        with pytest.raises(SystemExit):
            end()
    finally:
        for number, handler in zip(interrupts.WATCHED, before, strict=True):
            signal.signal(number, handler)
    assert left == [143, 2]
    assert capfd.readouterr().err == f"nasprune: terminated; {interrupts.ENDED}\n"


def test_while_a_folder_is_written_a_signal_unwinds_and_the_next_one_ends(left, capfd):
    watched = Interrupts()
    with watched.watching(), pytest.raises(Stopped), watched.holding(lambda: "two trials are kept"):
        signal.raise_signal(signal.SIGTERM)
    assert (watched.code, watched.line) == (143, "terminated; two trials are kept")
    with watched.watching(), watched.holding(lambda: "nothing"):
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGINT)
    assert left == [130]


def test_in_a_search_the_first_interrupt_is_a_wish(left, capfd):
    watched = Interrupts()
    with watched.watching(), watched.holding(lambda: "kept"):
        assert not watched.stopping()
        signal.raise_signal(signal.SIGINT)
        assert watched.stopping()
        assert "Ctrl-C again stops at once" in capfd.readouterr().err
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)
    assert left == []


def test_signals_that_were_ignored_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts().watching():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_nothing_stays_in_a_folder_that_was_not_written_to(tmp_path):
    with contextlib.suppress(Stopped), writing(tmp_path / "new" / "run", ("plan.json",)):
        assert (tmp_path / "new" / "run").exists()
        raise Stopped
    assert not (tmp_path / "new").exists()


def begun(tmp_path, arguments):
    (tmp_path / "slow.py").write_text(SLOW)
    return forked(lambda: main(arguments), tmp_path)


def trials(tmp_path):
    try:
        return (tmp_path / "o" / "trials.jsonl").read_text().count('"index"')
    except OSError:
        return 0


def waited(process, tmp_path, number):
    while trials(tmp_path) < number and process.is_alive():
        time.sleep(0.02)


def test_a_search_is_interrupted_terminated_and_goes_on(tmp_path, monkeypatch, capsys):
    command = [*SEARCH, "--evaluator", "slow.py:score", "--out", "o"]
    run = begun(tmp_path, command)
    waited(run.process, tmp_path, 2)
    os.kill(run.process.pid, signal.SIGINT)
    out = run.ended()
    assert run.process.exitcode == 130, out
    done = trials(tmp_path)
    assert 2 <= done < 9
    kept = f"the best plan so far and all trials ({done}) are kept in o"
    assert out.splitlines()[-1] == f"nasprune: interrupted; {kept}; repeat the command to go on"
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert report["trials"] == done
    assert any(f"stopped by Ctrl-C after {done} trials" in note for note in report["notes"])
    assert nasprune.load(tmp_path / "o", tiny_net())

    run = begun(tmp_path, command)
    waited(run.process, tmp_path, done + 1)
    run.process.terminate()
    out = run.ended()
    assert run.process.exitcode == 143, out
    assert "nasprune: terminated; all trials that ended (" in out
    assert ".nasprune.lock" not in os.listdir(tmp_path / "o")

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 0, capsys.readouterr()
    assert json.loads((tmp_path / "o" / "report.json").read_text())["trials"] == 9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_imports_are_interrupted_in_one_line(tmp_path, number):
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-c", "from nasprune.cli import main; main(['inspect'])"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    err = process.communicate()[1]
    assert process.returncode == 128 + number
    assert err.startswith("nasprune: ")
    assert err.count("\n") == 1
