"""Processes to kill and to limit: forks, which need not import torch anew, as a process begun from nothing has to."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TextIO

import torch


@dataclass(frozen=True)
class Forked:
    """process: its `exitcode` is negative where a signal ended it. written: all that it prints, a little at most."""

    process: BaseProcess
    written: TextIO

    def ended(self) -> str:
        """Waits for the end of the process; what it printed."""
        with self.written:
            text = self.written.read()
        self.process.join()
        return text


def forked(work: Callable[[], object], folder: Path) -> Forked:
    """Begins `work` in a process of its own, in that folder."""
    reader, writer = os.pipe()

    def begin() -> None:
        for number in (1, 2):
            os.dup2(writer, number)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        sys.dont_write_bytecode = True
        os.chdir(folder)
        torch.set_num_threads(1)  # makes torch's pool of threads anew before several threads ask for it at once
        work()

    process = multiprocessing.get_context("fork").Process(target=begin)
    process.start()
    os.close(writer)
    return Forked(process, open(reader))
