"""Threads of one process: torch's export, default type and random generators are used by one at a time."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import nasprune
from nasprune.common.alone import alone

pytestmark = pytest.mark.usefixtures("looked_at_anew")


def net(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 6), nn.Dropout(), nn.Linear(6, 3))


def test_two_threads_search_two_nets():
    inputs = torch.randn(1, 6)

    def proved(model: nn.Module) -> bool:
        result = nasprune.search(model, inputs, "60%", trials=1)
        return nasprune.verify(model, result.model, result.graph, result.plan).ok

    with ThreadPoolExecutor(2) as threads:
        assert all(threads.map(proved, [net(width) for width in (8, 9, 10, 11)]))
    assert torch.get_default_dtype() == torch.float32


def test_one_waits_for_the_other():
    entered, seen = threading.Event(), []

    def other() -> None:
        entered.set()
        with alone():
            seen.append("other")

    with alone(), alone():
        thread = threading.Thread(target=other)
        thread.start()
        entered.wait()
        seen.append("first")
    thread.join()
    assert seen == ["first", "other"]


def test_a_forked_process_waits_for_no_thread_that_it_does_not_have():
    inside, over = threading.Event(), threading.Event()

    def hold() -> None:
        with alone():
            inside.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    child = os.fork()
    if child == 0:
        with alone():
            os._exit(7)
    over.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
