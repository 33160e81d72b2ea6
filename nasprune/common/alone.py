"""What a process has only once: random generators, the default type, torch's way of tracing. One thread uses them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCKS: dict[int, threading.RLock] = {}
"""One for each process: in a forked one, a thread that held the lock may not exist."""


@contextmanager
def alone() -> Iterator[None]:
    """Inside, other threads that ask for the same wait; one that is inside already goes on."""
    with _LOCKS.setdefault(os.getpid(), threading.RLock()):
        yield
