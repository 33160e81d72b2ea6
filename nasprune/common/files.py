"""Writing files so that nothing half-written stays: under a temporary name, synced, then renamed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from nasprune.errors import InputError


def write_all(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes every file or none.

    Each file is written under a temporary name; only when the last one is on the disk are they renamed.

    Raises:
        InputError: the folder cannot be made or written, or the disk is full; what was there before is as it was.
    """
    made = make_folder(folder)
    waiting = {folder / f".{name}.partial": folder / name for name in contents}
    try:
        for path, content in zip(waiting, contents.values(), strict=True):
            with path.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, final in waiting.items():
            os.replace(path, final)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        for path in waiting:
            path.unlink(missing_ok=True)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def make_folder(folder: Path) -> bool:
    """Makes `folder` and its parents; whether it was new. Raises InputError where that is not possible."""
    try:
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return new


def unwritable(folder: Path, error: OSError) -> InputError:
    """What to raise when `folder` cannot be written."""
    return InputError(
        f"cannot write to {str(folder)!r}: {error.strerror or error}; free some space or choose another --out"
    )
