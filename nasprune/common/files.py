"""Files read and written so that nothing hangs, nothing half-written stays, and no link leads elsewhere.

What is read must be a regular file: opening a pipe would wait for a writer, a device may never end. What is written is
written under a temporary name, synced, then renamed, so that a link in the place of a file is replaced, not followed.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

from nasprune.errors import InputError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link",
}
NOT_WAITING = getattr(os, "O_NONBLOCK", 0)
NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def opened(path: Path, what: str, then: str) -> BufferedReader:
    """A regular file opened for reading, without waiting for anybody.

    Args:
        what: is read, for the message, such as "weights". then: what to do where it cannot be.

    Raises:
        InputError: it cannot be opened, or is a folder, a pipe, a device or a socket.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | NOT_WAITING)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot read {what} {str(path)!r}: {reason}; {then}") from error
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise InputError(f"cannot read {what} {str(path)!r}: it is {KINDS.get(kind, 'no file')}; {then}")
    return os.fdopen(descriptor, "rb")


def content_of(path: Path, what: str, then: str, *, most: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        InputError: as `opened`, or it has more than `most` bytes.
    """
    with opened(path, what, then) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise InputError(f"cannot read {what} {str(path)!r}: it has {size:,} bytes, at most {most:,} are; {then}")
        return file.read(most)


def write_all(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes every file or none.

    Each file is written under a temporary name; only when the last one is on the disk are they renamed, in order.

    Raises:
        InputError: the folder cannot be made or written, or the disk is full; what was there before is as it was.
    """
    made = make_folder(folder)
    waiting = {folder / f".{name}.partial": folder / name for name in contents}
    try:
        for path, content in zip(waiting, contents.values(), strict=True):
            path.unlink(missing_ok=True)  # of a process that was killed
            with path.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, final in waiting.items():
            os.replace(path, final)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        for path in waiting:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        drop_empty(made)


def check_places(folder: Path, names: Iterable[str]) -> None:
    """Raises InputError where one of the names in `folder` is taken by what a file cannot replace or be added to."""
    for name in names:
        try:
            kind = stat.S_IFMT((folder / name).lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            raise unwritable(folder, error) from error
        if kind != stat.S_IFREG:
            raise InputError(
                f"{str(folder / name)!r} is {KINDS.get(kind, 'no file')}, where a file is to be written; move it away, "
                "or choose another folder"
            )


def make_folder(folder: Path) -> tuple[Path, ...]:
    """Makes `folder` and its parents; those that were new, innermost first, for `drop_empty`.

    Raises:
        InputError: that is not possible.
    """
    try:
        new = tuple(itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise unwritable(folder, error) from error
    return new


def drop_empty(made: Iterable[Path]) -> None:
    """Drops folders that `make_folder` made, as far as nothing was put into them."""
    with suppress(OSError):
        for folder in made:
            folder.rmdir()


def unwritable(folder: Path, error: OSError | ValueError) -> InputError:
    """What to raise when `folder` cannot be written."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    if folder.is_symlink() and not folder.exists():
        reason = "it is a link to nothing"
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return InputError(f"cannot write to {str(folder)!r}: {reason}; {'free some space or ' * full}choose another --out")
