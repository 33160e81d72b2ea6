"""What a search spends on its promises: the proof, the life of the cut, the user's model left untouched, the lock.

    python -m benchmarks.checks

The main job, ResNet-50 to 2 GFLOPs without data on one thread, is run with its checks, without the proof, the lock and
the twin of the user's model, and with all checks taken out (that the cut net lives in training and on other inputs, and
that it is rebuilt on the untouched model), in turn and each time in a process of its own: CPU seconds of the search,
those of the process with its start, as of the command, and the highest memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, nullcontext
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
import torchvision
from rich.console import Console
from rich.table import Table

import nasprune
from nasprune.cut.plan import PrunePlan
from nasprune.cut.proof import Proof
from nasprune.cut.surgery import build
from nasprune.cut.verify import Proven
from nasprune.graph.model import ModelGraph

REPEATS = 3


def unproved(model: torch.nn.Module, graph: ModelGraph, plan: PrunePlan) -> Proven:
    return Proven(build(model, graph, plan), plan, Proof(True, 0.0, 0.0, "float64", 0, 0))


PROOF: dict[str, Any] = {
    "nasprune.run.rounds.prove": unproved,
    "nasprune.run.trace.twin": lambda model: model,
    "nasprune.run.request.twin": lambda model: model,
    "nasprune.run.search.held": lambda _: nullcontext(),
}
LIFE: dict[str, Any] = {
    "nasprune.run.trace.kept_alive": lambda _, graph: graph,
    "nasprune.run.search.rebuilt": lambda _, fitted, *__: fitted,
}
WITHOUT = {"nothing": {}, "proof, lock, twin": PROOF, "all checks": {**PROOF, **LIFE}}


def main_job(without: str) -> None:
    """Prints CPU seconds and GiB at the highest."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, inputs = torchvision.models.resnet50().eval(), torch.randn(1, 3, 224, 224)
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        for name, stub in WITHOUT[without].items():
            stack.enter_context(patch(name, stub))
        start = time.process_time()
        nasprune.search(model, inputs, "2GFLOPs", out=folder)
        spent = time.process_time() - start
    print(json.dumps([spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))


def measured(*options: str) -> tuple[float, float, float]:
    """CPU seconds of the search and of its process, and GiB."""
    before = processes()
    out = subprocess.run([sys.executable, "-m", "benchmarks.checks", *options], check=True, capture_output=True).stdout
    seconds, memory = json.loads(out.splitlines()[-1])
    return seconds, processes() - before, memory


def processes() -> float:
    """CPU seconds of all processes that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", choices=WITHOUT, help="one run without these, for the parent process")
    chosen = parser.parse_args().run
    if chosen is not None:
        main_job(chosen)
        return
    rounds = [{name: measured("--run", name) for name in WITHOUT} for _ in range(REPEATS)]
    table = Table(
        "ResNet-50, 2 GFLOPs, no data, without",
        "CPU s",
        "of the process",
        "GiB",
        "so they add",
        "to the process",
        title=f"what the checks cost, medians of {REPEATS} runs in turn",
    )
    for name in WITHOUT:
        seconds, whole, memory = (median(found[name][value] for found in rounds) for value in range(3))
        added = [median(found["nothing"][value] / found[name][value] for found in rounds) - 1 for value in range(2)]
        more = median(found["nothing"][2] for found in rounds) - memory
        said = (f"{added[0]:+.0%}, {more:+.2f} GiB", f"{added[1]:+.0%}") if WITHOUT[name] else ("", "")
        table.add_row(name, f"{seconds:.1f}", f"{whole:.1f}", f"{memory:.2f}", *said)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
