"""Files read by threads beside the caller, in order: opening and decoding the next images need not wait for a network.

Only images of an image folder with nasprune's own preparation are read so: a user's data set may not be made for
several threads, or draw random numbers, which would then fall differently in every run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import torch
from torch.utils.data import Dataset

from nasprune.data.items import LabelledImages, innermost
from nasprune.data.pixels import ToTensor

MOST = 8
"""Threads that read, where torch may use as many."""
AHEAD = 1
"""Batches that are read before they are asked for."""


def read_ahead(items: Dataset[Any], chosen: Sequence[Sequence[int]]) -> Generator[list[Any]]:
    """For each list of item numbers the items, in order.

    Raises:
        InputError: an item cannot be read; when its turn comes, as if nothing had been read ahead.
    """
    get = cast(LabelledImages, items).__getitem__
    if not _may_be_threaded(items):
        for numbers in chosen:
            yield [get(number) for number in numbers]
        return
    pool = ThreadPoolExecutor(min(MOST, torch.get_num_threads()), thread_name_prefix="nasprune-read")
    waiting: deque[list[Future[Any]]] = deque()
    try:
        for numbers in chosen:
            waiting.append([pool.submit(get, number) for number in numbers])
            if len(waiting) > AHEAD:
                yield [future.result() for future in waiting.popleft()]
        for futures in waiting:
            yield [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _may_be_threaded(items: Dataset[Any]) -> bool:
    return isinstance(getattr(innermost(items), "transform", None), ToTensor)
