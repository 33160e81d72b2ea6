"""One writer for each folder: a lock that the operating system drops with the process, however it ends.

The lock is a record lock on `FOLDER/.nasprune.lock` (POSIX `fcntl`), so that a killed process leaves none, over NFS
too; the file says which process holds it. Where the file system knows no such locks, the file alone decides: it is
stale where its process is known to be gone.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nasprune.common.files import NO_LINK, NOT_WAITING, check_places, drop_empty, make_folder, unwritable
from nasprune.common.words import visible
from nasprune.errors import InputError

FILE = ".nasprune.lock"
_HELD: dict[tuple[int, int], int] = {}
"""Folders (device, inode) that this process writes -> the thread that does."""
_GUARD = threading.Lock()


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock."""

    pid: int
    host: str

    @classmethod
    def read(cls, descriptor: int) -> Owner | None:
        """What a lock file says; `None` where it says nothing that makes sense."""
        try:
            found = json.loads(os.pread(descriptor, 1000, 0))
            return cls(int(found["pid"]), str(found["host"])[:100])
        except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return None

    @property
    def here(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def gone(self) -> bool:
        """Whether it is known that the process has ended."""
        if not self.here or self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        return False


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Inside, no other process and no other thread writes to `folder`, if it asks; the thread itself may ask again.

    The folder is made where it is missing, which shows that it can be written, and dropped again where it stays empty.

    Raises:
        InputError: somebody else writes to the folder, or it cannot be written.
    """
    made = make_folder(folder)
    try:
        key = _key(folder)
        with _GUARD:
            other = _HELD.get(key)
            if other is None:
                descriptor = _locked(folder)
                _HELD[key] = threading.get_ident()
        if other is not None:
            if other != threading.get_ident():
                raise _taken(folder, Owner(os.getpid(), socket.gethostname()))
            yield
            return
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the folder is gone
                (folder / FILE).unlink()
            with _GUARD:
                del _HELD[key]
                os.close(descriptor)
    finally:
        drop_empty(made)


def _key(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _locked(folder: Path) -> int:
    """A descriptor of the lock file, which holds the lock until it is closed."""
    path = folder / FILE
    while True:
        check_places(folder, (FILE,))
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NO_LINK | NOT_WAITING, 0o666)
        except OSError as error:
            raise unwritable(folder, error) from error
        try:
            before = Owner.read(descriptor)
            if not _try(descriptor, before):
                raise _taken(folder, before)
            if _same(path, descriptor):
                _sign(descriptor, before, folder)
                return descriptor
        except OSError as error:
            os.close(descriptor)
            raise unwritable(folder, error) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder dropped it in between: a new one has to be made


def _try(descriptor: int, owner: Owner | None) -> bool:
    """Takes the lock of the operating system, or where there is none believes the file."""
    try:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except ImportError:  # Windows
        pass
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
    return owner is None or owner.gone


def _same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int, before: Owner | None, folder: Path) -> None:
    if before is not None and not before.here:
        logging.getLogger(__name__).warning(
            "process %d on %s left a lock in %s and does not hold it any more; it is taken over",
            before.pid,
            visible(before.host),
            folder,
        )
    content = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, content, 0)


def _taken(folder: Path, owner: Owner | None) -> InputError:
    who = f"process {owner.pid} on {visible(owner.host)}" if owner is not None else "another process"
    return InputError(
        f"{who} writes to {str(folder)!r} already; wait for it, or choose another --out (if you know that it has "
        f"ended, delete {str(folder / FILE)!r})"
    )
