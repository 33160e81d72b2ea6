"""The trials of a run on disk: one JSON line each, appended as they end, read back when a search is resumed.

The first line holds the settings that decide the result; a folder written under other settings is refused. A search
that had to freeze something after its proof starts a new round, with a line of its own. The file is read as a whole
before anything is written: one that is damaged or not ours is refused by its line and left as it is. Only a last line
that a killed process left unfinished is dropped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nasprune.common.files import NO_LINK, check_places, make_folder
from nasprune.errors import InputError
from nasprune.run.recorded import FILE, Recorded, recorded
from nasprune.space.trials import Trial

RESULTS = ("plan.json", "report.json", "model.safetensors")
SYNC_SECONDS = 1.0


class Journal:
    """Appends and replays trials. Without a folder nothing is kept.

    Lines reach the operating system at once, so that killing the process loses none; the disk is waited for at most
    once a second, since a power failure may cost the last second but no more.

    Args:
        folder: the run's folder, made where it is missing; `None` keeps nothing. Hold its lock (`common.locks`).
        settings: names and values that decide the result.

    Raises:
        InputError: the folder holds another run, a record that is damaged or not ours, or cannot be written.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, str]) -> None:
        self._path = folder / FILE if folder is not None else None
        self._rounds: list[tuple[dict[str, str], list[Trial]]] = []
        self._synced = 0.0
        self._size = 0
        if folder is None or self._path is None:
            return
        make_folder(folder)
        check_places(folder, (FILE,))
        first = _line({"settings": dict(settings)})
        found = recorded(self._path, first) if self._path.exists() else Recorded({}, [], 0)
        if any(trials for _, trials in found.rounds):
            self._resume(folder, found, settings)
        elif taken := [name for name in RESULTS if os.path.lexists(folder / name)]:
            raise InputError(f"the folder {str(folder)!r} holds another result ({taken[0]}); choose another one")
        else:
            self._path.unlink(missing_ok=True)  # of a run that ended before its first trial
            self._append(first)

    def round(self, number: int, frozen: Mapping[str, str]) -> tuple[Trial, ...]:
        """The trials recorded in one round; the next round is opened where it has none.

        Raises:
            InputError: the recorded round froze other things.
        """
        if number == len(self._rounds):
            self._rounds.append((dict(frozen), []))
            self._append(_line({"round": number, "frozen": dict(frozen)}))
        known, trials = self._rounds[number]
        if known != dict(frozen):
            raise InputError(f"round {number} of {self._path} froze other groups than now; choose another folder")
        return tuple(trials)

    def known(self, number: int) -> Mapping[str, str]:
        """What was recorded of a round when it began; nothing where it did not."""
        return self._rounds[number][0] if number < len(self._rounds) else {}

    def closed(self, number: int) -> bool:
        """Whether the recorded search went on to a later round."""
        return number + 1 < len(self._rounds)

    def add(self, trial: Trial) -> None:
        """Appends a trial to the last round."""
        self._append(trial.to_json().encode() + b"\n")
        self._rounds[-1][1].append(trial)

    def end(self) -> None:
        """From here on nothing more is written, so that a search that was stopped goes on from where it was."""
        self._path = None

    def section(self, start: int, mark: Mapping[str, str]) -> Section:
        """The rounds from `start` on, for a search inside of this one that counts its own. mark: what it is about."""
        return Section(self, start, mark)

    def discard(self) -> None:
        """Deletes what was written: nothing can come of it."""
        if self._path is not None:
            _drop(self._path)
            self._path = None

    @contextmanager
    def dropped_if_empty(self) -> Iterator[None]:
        """An error that comes before the first trial leaves no file behind, and no folder that holds nothing else."""
        try:
            yield
        except BaseException:
            if self._path is not None and not any(trials for _, trials in self._rounds):
                _drop(self._path)
            raise

    def _resume(self, folder: Path, found: Recorded, settings: Mapping[str, str]) -> None:
        known = found.settings
        for name in sorted({*known, *settings}):
            if known.get(name) != settings.get(name):
                raise InputError(
                    f"the folder {str(folder)!r} holds another run ({name}: {known.get(name, 'not set')} there, "
                    f"{settings.get(name, 'not set')} now); choose another folder, or repeat the command as it was"
                )
        self._rounds, self._size = found.rounds, found.size
        assert self._path is not None
        try:
            os.truncate(self._path, found.size)
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _append(self, line: bytes) -> None:
        if self._path is None:
            return
        try:
            self._write(self._path, line)
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._path, self._size)
            if not self._size:  # not even the settings fitted: leave no trace of the run
                _drop(self._path)
            raise _unwritable(self._path, error) from error
        self._size += len(line)

    def _write(self, path: Path, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | NO_LINK | (0 if self._size else os.O_CREAT | os.O_EXCL)
        with os.fdopen(os.open(path, flags, 0o666), "ab") as file:
            if os.fstat(file.fileno()).st_size != self._size:
                raise InputError(
                    f"somebody else wrote to {str(path)!r} while the search went on; choose a folder of its own"
                )
            file.write(line)
            file.flush()
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(file.fileno())
                self._synced = time.monotonic()


class Section(Journal):
    """Rounds of a whole journal that an inner search writes, as if they were all there are.

    used: how many rounds it has had.
    """

    def __init__(self, whole: Journal, start: int, mark: Mapping[str, str]) -> None:
        self._whole, self._start, self._mark, self.used = whole, start, mark, 0

    def round(self, number: int, frozen: Mapping[str, str]) -> tuple[Trial, ...]:
        self.used = max(self.used, number + 1)
        return self._whole.round(self._start + number, {**frozen, **self._mark})

    def known(self, number: int) -> Mapping[str, str]:
        return self._whole.known(self._start + number)

    def closed(self, number: int) -> bool:
        return self._whole.closed(self._start + number)

    def add(self, trial: Trial) -> None:
        self._whole.add(trial)

    def end(self) -> None:
        self._whole.end()

    def discard(self) -> None:
        """The whole journal is not this search's to delete."""

    @contextmanager
    def dropped_if_empty(self) -> Iterator[None]:
        """Nor here: other searches may follow."""
        yield


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _drop(path: Path) -> None:
    path.unlink(missing_ok=True)
    with suppress(OSError):  # the folder holds other files
        path.parent.rmdir()


def _unwritable(path: Path, error: OSError) -> InputError:
    reason = error.strerror or error
    return InputError(
        f"cannot write {str(path)!r}: {reason}; make room or choose another folder. Trials recorded before are kept"
    )
