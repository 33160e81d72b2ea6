"""Whether budgets of latency are kept, and what they are worth beside budgets of FLOPs at equal time.

    python -m benchmarks.latency [--nets GLOB] [--runtimes eager onnxruntime] [--batches 1 8] [--share 60]
        [--threads 1] [--trials 300] [--out DIR]

A row is a network, a runtime and a batch size. A search is asked for a share of the latency; the share that its report
says stands beside that which a fresh process measures on the saved network, each in turn with the dense one. A promise
is kept where the fresh process measures at most 105 % of what was asked for. Then searches within shares of the FLOPs,
found by halving an interval, give the best network that takes no more time than that of the latency budget, measured in
turn with it; both have the same score, the importance that they keep, since the networks are not trained. Seconds are
those of both searches, with the table of layers on disk before either begins, and what the one takes of the other's:
at most 1.5 is what is wanted.

As plain stands what a loop of nothing but forward passes sees in that process, before the memory that is freed is kept,
as nasprune's own measurements have it: with glibc's thresholds that is another number in every process.

It measures time: let nothing else run. With less than five per cent of drift between two runs of a dense network a
machine is quiet enough; the last column is the drift between the search and the fresh process.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

import nasprune
from benchmarks.latency_nets import NETS, images, net_of
from benchmarks.rows import WIDTH, Failed, Record, worked
from nasprune.cost.latency import compare_latency
from nasprune.deploy.runtimes import runtime_of
from nasprune.run.result import SearchResult
from nasprune.run.stopwatch import batched

HALVINGS = 5
SECONDS = 4.0
WITHIN = 1.05
LONGER = 1.5


@dataclass(frozen=True)
class Job:
    """percent: of the dense latency that is asked for."""

    net: str
    runtime: str
    batch: int
    percent: int
    threads: int
    trials: int

    def __str__(self) -> str:
        return f"{self.net}, {self.runtime}, batch {self.batch}"


@dataclass(frozen=True)
class Row:
    """Shares of the dense latency as reported and as measured again; scores at equal time; milliseconds, seconds.

    plain: as `again`, by a plain loop with glibc's own thresholds. beside, beside_flops: score and share of the FLOPs
    of the best FLOPs budget in equal time. drift: of the dense network's time between the search and the fresh process,
    as a share.
    """

    job: Job
    reported: float
    again: float
    plain: float
    score: float
    flops: float
    beside: float
    beside_flops: float
    seconds: float
    beside_seconds: float
    drift: float

    @property
    def kept(self) -> bool:
        return 100 * self.again <= WITHIN * self.job.percent

    @property
    def times_flops(self) -> float:
        """Search time / FLOPs search time, table cached."""
        return self.seconds / self.beside_seconds


def worked_at(job: Job) -> Row:
    """The row of a job."""
    torch.set_num_threads(job.threads)
    _search(replace(job, trials=1), f"{job.percent}% latency")  # from here on the table is cached
    found = _search(job, f"{job.percent}% latency")
    dense, cut = (found.report.measured[f"latency_ms {which}"] for which in ("dense", "cut"))
    with tempfile.TemporaryDirectory() as folder:
        nasprune.save(found, folder)
        fresh = _in_a_fresh_process(job, folder)
    beside = _best_flops(job, found)
    return Row(
        job,
        reported=cut / dense,
        again=fresh[1] / fresh[0],
        plain=fresh[3] / fresh[2],
        score=found.report.score,
        flops=found.report.cut.flops / found.report.dense.flops,
        beside=beside.report.score,
        beside_flops=beside.report.cut.flops / beside.report.dense.flops,
        seconds=found.report.seconds,
        beside_seconds=beside.report.seconds,
        drift=fresh[0] / dense - 1,
    )


def _search(job: Job, budget: str) -> SearchResult:
    return nasprune.search(
        net_of(job.net),
        images(),
        budget,
        batch=job.batch,
        threads=job.threads,
        runtime=job.runtime,
        trials=job.trials,
        allow_uncounted=True,
    )


def _best_flops(job: Job, found: SearchResult) -> SearchResult:
    """The network within the largest budget of FLOPs that takes no more time than the one that was found."""
    inputs, runtime = batched(nasprune.Inputs.of(images()), job.batch), runtime_of(job.runtime)
    low, high = 5.0, 100.0
    best: SearchResult | None = None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        other = _search(job, f"{middle:.2f}%")
        own, its = compare_latency([found.model, other.model], inputs, seconds=SECONDS, runtime=runtime)
        if its <= own:
            low, best = middle, other
        else:
            high = middle
    return best or _search(job, f"{low:.2f}%")


def _in_a_fresh_process(job: Job, folder: str) -> list[float]:
    """Milliseconds of the dense and of the saved network, and of both by a plain loop."""
    command = [sys.executable, "-m", "benchmarks.latency", "--again", folder, "--nets", job.net]
    command += ["--runtimes", job.runtime, "--batches", str(job.batch), "--threads", str(job.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(map(float, json.loads(done.stdout.splitlines()[-1])))


def again(job: Job, folder: str) -> None:
    """Measures a saved network, and prints the milliseconds."""
    torch.set_num_threads(job.threads)
    dense = net_of(job.net)
    small = nasprune.load(folder, model=net_of(job.net)).eval()
    inputs = batched(nasprune.Inputs.of(images()), job.batch)
    runtime = runtime_of(job.runtime)
    plain = _plain([runtime.ready(model, inputs) for model in (dense, small)], inputs)
    print(json.dumps([*compare_latency([dense, small], inputs, seconds=SECONDS, runtime=runtime), *plain]))


def _plain(calls: list[Callable[[nasprune.Inputs], object]], inputs: nasprune.Inputs) -> list[float]:
    """Median milliseconds of each, in turn, after one turn."""
    times: list[list[float]] = [[] for _ in calls]
    until = time.monotonic() + SECONDS
    with torch.inference_mode():
        while len(times[0]) <= 5 or time.monotonic() < until:
            for call, each in zip(calls, times, strict=True):
                start = time.perf_counter()
                call(inputs)
                each.append(1e3 * (time.perf_counter() - start))
    return [median(each[1:]) for each in times]


def table(rows: list[Row | Failed], jobs: list[Job]) -> Table:
    """One line for each row."""
    head = [
        "asked",
        "reported",
        "again",
        "plain",
        "kept",
        "FLOPs",
        "score",
        "FLOPs budget in equal time",
        "seconds",
        "of FLOPs search",
        "drift",
    ]
    shown = Table("network", *head, title="Budgets of latency, in percent of the dense network's")
    for column in shown.columns[1:]:
        column.justify = "right"
    for job, row in zip(jobs, rows, strict=False):
        if isinstance(row, Failed):
            shown.add_row(str(job), str(job.percent), str(row))
            continue
        shown.add_row(
            str(job),
            str(job.percent),
            f"{100 * row.reported:.1f}",
            f"{100 * row.again:.1f}",
            f"{100 * row.plain:.1f}",
            "yes" if row.kept else "NO",
            f"{100 * row.flops:.0f}",
            f"{row.score:.4f}",
            f"{row.beside:.4f} at {100 * row.beside_flops:.0f}",
            f"{row.seconds:.1f}, {row.beside_seconds:.1f}",
            f"{row.times_flops:.2f}",
            f"{100 * row.drift:+.1f}",
        )
    done = [row for row in rows if isinstance(row, Row)]
    shown.caption = (
        f"{sum(row.kept for row in done)} of {len(done)} promises kept within 5 %; the score is at least that of the "
        f"FLOPs budget in {sum(row.score >= row.beside for row in done)}; the search takes at most {LONGER} times as "
        f"long as one within FLOPs in {sum(row.times_flops <= LONGER for row in done)}"
    )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="*", help="a glob")
    parser.add_argument("--runtimes", nargs="+", default=["eager", "onnxruntime"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--share", type=int, default=60, help="percent of the dense latency")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/latency"))
    parser.add_argument("--again", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("nasprune").setLevel(logging.ERROR)
    jobs = [
        Job(net, runtime, batch, options.share, options.threads, options.trials)
        for net in NETS
        if fnmatchcase(net, options.nets)
        for runtime in options.runtimes
        for batch in options.batches
    ]
    if options.again is not None:
        again(jobs[0], options.again)
        return
    console = Console(width=WIDTH)
    begun: list[Job] = []
    rows: list[Row | Failed] = []
    record = Record(options.out, "budgets of latency", lambda: table(rows, begun))
    for job, row in worked(worked_at, jobs, at_once=1, threads=options.threads):
        begun.append(job)
        rows.append(row)
        record.add(row)
        console.print(record.table())


if __name__ == "__main__":
    main()
