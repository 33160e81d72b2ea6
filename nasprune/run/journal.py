"""The trials of a run on disk: one JSON line each, appended as they end, read back when a search is resumed.

The first line holds the settings that decide the result; a folder written under other settings is refused. A search
that had to freeze something after its proof starts a new round, with a line of its own. A line that a killed process
left unfinished is dropped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nasprune.errors import InputError
from nasprune.space.trials import Trial

FILE = "trials.jsonl"
RESULTS = ("plan.json", "report.json", "model.safetensors")
SYNC_SECONDS = 1.0


class Journal:
    """Appends and replays trials. Without a folder nothing is kept.

    Lines reach the operating system at once, so that killing the process loses none; the disk is waited for at most
    once a second, since a power failure may cost the last second but no more.

    Args:
        folder: the run's folder, made where it is missing; `None` keeps nothing.
        settings: names and values that decide the result.

    Raises:
        InputError: the folder holds another run, or cannot be written.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, str]) -> None:
        self._path = folder / FILE if folder is not None else None
        self._rounds: list[tuple[dict[str, str], list[Trial]]] = []
        self._synced = 0.0
        if folder is None or self._path is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = self._whole_lines(self._path)
        except OSError as error:
            raise _unwritable(folder, error) from error
        known = _settings(folder, lines[0]) if lines else {}
        if any("round" not in json.loads(line) for line in lines[1:]):
            self._read(folder, known, lines, settings)
        elif found := [name for name in RESULTS if (folder / name).exists()]:
            raise InputError(f"the folder {str(folder)!r} holds another result ({found[0]}); choose another one")
        else:
            self._path.unlink(missing_ok=True)  # of a run that ended before its first trial
            self._append({"settings": dict(settings)})

    def round(self, number: int, frozen: Mapping[str, str]) -> tuple[Trial, ...]:
        """The trials recorded in one round; the next round is opened where it has none.

        Raises:
            InputError: the recorded round froze other things.
        """
        if number == len(self._rounds):
            self._rounds.append((dict(frozen), []))
            self._append({"round": number, "frozen": dict(frozen)})
        known, trials = self._rounds[number]
        if known != dict(frozen):
            raise InputError(f"round {number} of {self._path} froze other groups than now; choose another folder")
        return tuple(trials)

    def closed(self, number: int) -> bool:
        """Whether the recorded search went on to a later round."""
        return number + 1 < len(self._rounds)

    def add(self, trial: Trial) -> None:
        """Appends a trial to the last round."""
        self._append(trial.to_json())
        self._rounds[-1][1].append(trial)

    @contextmanager
    def dropped_if_empty(self) -> Iterator[None]:
        """An error that comes before the first trial leaves no file behind, and no folder that holds nothing else."""
        try:
            yield
        except BaseException:
            if self._path is not None and not any(trials for _, trials in self._rounds):
                _drop(self._path)
            raise

    def _read(self, folder: Path, known: Mapping[str, str], lines: list[str], settings: Mapping[str, str]) -> None:
        for name in sorted({*known, *settings}):
            if known.get(name) != settings.get(name):
                raise InputError(
                    f"the folder {str(folder)!r} holds another run ({name}: {known.get(name, 'not set')} there, "
                    f"{settings.get(name, 'not set')} now); choose another folder, or repeat the command as it was"
                )
        for line in lines[1:]:
            record = json.loads(line)
            if "round" in record:
                self._rounds.append((record["frozen"], []))
            else:
                self._rounds[-1][1].append(Trial.from_json(line))

    def _whole_lines(self, path: Path) -> list[str]:
        """The complete lines of the file, which is cut back to them."""
        if not path.exists():
            return []
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(path, len(whole))
        return whole.decode().splitlines()

    def _append(self, record: str | dict[str, Any]) -> None:
        if self._path is None:
            return
        line = record if isinstance(record, str) else json.dumps(record)
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("ab") as file:
                file.write(line.encode() + b"\n")
                file.flush()
                if time.monotonic() - self._synced > SYNC_SECONDS:
                    os.fsync(file.fileno())
                    self._synced = time.monotonic()
        except OSError as error:
            if self._path.exists():
                os.truncate(self._path, size)
            if not size:  # not even the settings fitted: leave no trace of the run
                _drop(self._path)
            raise _unwritable(self._path, error) from error


def _settings(folder: Path, line: str) -> dict[str, str]:
    try:
        settings = json.loads(line)["settings"]
        return {str(name): str(value) for name, value in settings.items()}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / FILE} is no trial record of nasprune; choose another folder") from error


def _drop(path: Path) -> None:
    path.unlink(missing_ok=True)
    with suppress(OSError):  # the folder holds other files
        path.parent.rmdir()


def _unwritable(path: Path, error: OSError) -> InputError:
    reason = error.strerror or error
    return InputError(
        f"cannot write {str(path)!r}: {reason}; make room or choose another folder. Trials recorded before are kept"
    )
