"""Rows of a benchmark: worked at side by side, and on the disk as soon as they are there.

After every row `FOLDER/rows.json` holds all rows so far and `FOLDER/table.txt` their table, each renamed into place, so
that an interruption at any moment costs the rows that were being worked at and no others.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table

from nasprune.common.files import write_all

WIDTH = 150
J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True)
class Failed:
    """Why a row did not come to its end."""

    why: str

    def __str__(self) -> str:
        return f"failed: {self.why}"


@dataclass
class Record:
    """The files of one benchmark. rows: dataclasses, in the order they came."""

    folder: Path
    title: str
    table: Callable[[], Table]
    rows: list[Any] = field(default_factory=list)
    began: float = field(default_factory=time.time)

    def add(self, *rows: Any) -> None:
        """Keeps more rows. `table` is called anew, and must know them already."""
        self.rows += rows
        known = {"title": self.title, "command": sys.argv, "torch": torch.__version__, "machine": platform.platform()}
        seconds = round(time.time() - self.began, 1)
        content = {
            **known,
            "processors": os.cpu_count(),
            "seconds": seconds,
            "rows": [_record(row) for row in self.rows],
        }
        text = StringIO()
        Console(width=WIDTH, file=text).print(self.table())
        files = {"rows.json": json.dumps(content, indent=1), "table.txt": text.getvalue()}
        write_all(self.folder, {name: one.encode() for name, one in files.items()})


def _record(row: Any) -> dict[str, Any]:
    return {"kind": type(row).__name__, **asdict(row)}


def add_options(parser: argparse.ArgumentParser, name: str, *, seeds: int | None = 3) -> None:
    """`--seeds`, `--jobs`, `--threads` and `--out`, which all benchmarks of training take."""
    parser.add_argument("--seeds", type=int, default=seeds, help="how many")
    parser.add_argument("--threads", type=int, help="of torch, in each process; by default its own choice")
    parser.add_argument("--jobs", type=int, default=1, help="rows worked at at once, each in a process")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench") / name, help="folder for rows.json and table.txt"
    )


def worked(
    work: Callable[[J], R], jobs: Sequence[J], *, at_once: int, threads: int | None
) -> Iterator[tuple[J, R | Failed]]:
    """What comes of each job, as it comes; a job that fails does not end the others. SIGTERM is as SIGINT."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if at_once == 1:
        _begin(threads)
        for job in jobs:
            yield job, _tried(work, job)
        return
    pool = ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn"), _begin, (threads,))
    try:
        waiting = {pool.submit(_tried, work, job): job for job in jobs}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()


def _begin(threads: int | None) -> None:
    if threads:
        torch.set_num_threads(threads)


def _tried(work: Callable[[J], R], job: J) -> R | Failed:
    try:
        return work(job)
    except Exception as error:
        traceback.print_exc()
        return Failed(f"{type(error).__name__}: {error}")
