"""Memory of large tensors is used again instead of being given back and mapped anew.

glibc gives every block above 32 MiB back when it is freed, and the next one starts as empty pages that the kernel must
fill with zeros first. On images of 224 pixels that is nearly half of the CPU time of a forward pass: the output of the
first layers of a ResNet-50 takes 100 MiB for a batch of 32. Which blocks are given back depends on all that a process
did before, so that latencies, too, are measured with memory that is kept.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of malloc.h
USUAL = {MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}
"""What glibc comes to by itself once a program has used large blocks."""
KEPT = {MMAP_THRESHOLD: 2**30, TRIM_THRESHOLD: 2**31 - 1}


class _Users:
    """How many want memory to be kept, in all threads."""

    lock = Lock()
    count = 0


@contextmanager
def memory_reused() -> Iterator[None]:
    """Freed memory stays with the process inside; at the end it is given back. Without glibc nothing changes."""
    _enter()
    try:
        yield
    finally:
        _leave()


def give_back(least: int = 0) -> None:
    """Gives memory that is free back to the system, where it is more than `least` bytes; for between two steps."""
    glibc = _glibc()
    if glibc is not None and _spare(glibc) > least:
        glibc.malloc_trim(0)


def _spare(glibc: ctypes.CDLL) -> int:
    """Bytes that are free and still belong to the process; before glibc 2.33, which does not say, as many as may be."""
    return int(glibc.mallinfo2().free) if hasattr(glibc, "mallinfo2") else sys.maxsize


class _Held(ctypes.Structure):
    """`struct mallinfo2` of malloc.h; of its numbers the last but one are bytes that are free."""

    _fields_ = [("before", ctypes.c_size_t * 8), ("free", ctypes.c_size_t), ("last", ctypes.c_size_t)]


def _enter() -> None:
    with _Users.lock:
        _Users.count += 1
        if _Users.count == 1:
            _set(KEPT)


def _leave() -> None:
    with _Users.lock:
        _Users.count -= 1
        if _Users.count == 0:
            _set(USUAL)
            give_back()


def _set(values: dict[int, int]) -> None:
    glibc = _glibc()
    if glibc is not None:
        for parameter, value in values.items():
            glibc.mallopt(parameter, value)


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    if not all(hasattr(library, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim")):
        return None
    if hasattr(library, "mallinfo2"):
        library.mallinfo2.restype = _Held
    return library
