"""Whether a search that is killed at any moment goes on to the same plan, and whether two writers can harm each other.

    python -m benchmarks.kills [--times 50] [--seed 0] [--trials 20]

A small search is run once undisturbed. Then, `--times` times each at random moments:

- kill -9: the same command is killed and repeated, up to three times, then runs to its end;
- two writers: the same command runs twice, the second a little later than the first; whichever comes in between is
  refused with exit code 2.

Every time the plan and the weights must be those of the undisturbed search, bit for bit; a file of somebody else in the
folder must stay as it is; and nothing but the files of a search may be left. Processes are forked from one that has
imported everything, so that the moments fall into the search and not into its imports. The exit code is 1 where
anything is wrong.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

import nasprune
from nasprune.cli import main as command

NET = """
import time
import torch
from torch import nn

def tiny():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
    net.input_shape = (1, 8, 8)
    return net

def score(model):
    time.sleep(0.02)
    return -float(sum(value.abs().sum() for value in model.parameters()))
"""
SEARCH = (
    *("search", "--model", "net.py:tiny", "--budget", "50%", "--controller", "evolution"),
    *("--evaluator", "net.py:score", "--out", "o"),
)
RESULT = ("plan.json", "model.safetensors")
OWN = {*RESULT, "report.json", "report.md", "report.html", "run.toml", "trials.jsonl"}
FOREIGN = {"notes.txt": b"results of another tool", "other.jsonl": b'{"my": 1}'}


def started(arguments: Sequence[str], log: str) -> int:
    """The process id of a fork that runs the command; what it prints goes to the end of `log`."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        torch.set_num_threads(1)  # makes torch's pool of threads anew before several threads ask for it at once
        command(list(arguments))
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(child: int) -> int:
    """The exit code; -9 of a killed process."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(search: Sequence[str], after: float) -> int:
    """The exit code of a search that is killed after so many seconds."""
    child = started(search, "log")
    time.sleep(after)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return ended(child)


def folder() -> None:
    """An empty run folder that holds files of somebody else."""
    shutil.rmtree("o", ignore_errors=True)
    Path("log").unlink(missing_ok=True)
    Path("o").mkdir()
    for name, content in FOREIGN.items():
        (Path("o") / name).write_bytes(content)


def result() -> dict[str, bytes]:
    return {name: (Path("o") / name).read_bytes() for name in RESULT if (Path("o") / name).exists()}


def wrong(expected: dict[str, bytes]) -> list[str]:
    """What is not as after an undisturbed search."""
    found = [name for name, content in expected.items() if result().get(name) != content]
    found += [name for name, content in FOREIGN.items() if (Path("o") / name).read_bytes() != content]
    found += sorted({path.name for path in Path("o").iterdir()} - OWN - set(FOREIGN))
    return found + (["a traceback"] if "Traceback" in Path("log").read_text(errors="replace") else [])


def kills(
    search: Sequence[str], expected: dict[str, bytes], seconds: float, rng: random.Random
) -> tuple[str, list[str]]:
    """How often the process was killed before its end, and what is wrong afterwards."""
    folder()
    codes = [killed(search, rng.uniform(0, 1.1 * seconds)) for _ in range(rng.randint(1, 3))]
    last = ended(started(search, "log"))
    return f"{codes.count(-9)} kills", wrong(expected) + ([f"exit code {last}"] if last else [])


def writers(
    search: Sequence[str], expected: dict[str, bytes], seconds: float, rng: random.Random
) -> tuple[str, list[str]]:
    """How two writers ended, and what is wrong afterwards."""
    folder()
    first = started(search, "log")
    time.sleep(rng.uniform(0, seconds))
    second = started(search, "log")
    codes = sorted((ended(first), ended(second)))
    refused = "writes to 'o' already" in Path("log").read_text(errors="replace")
    fine = codes == [0, 0] or (codes == [0, 2] and refused)
    return f"exit codes {codes}", wrong(expected) + ([] if fine else ["exit codes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    os.chdir(tempfile.mkdtemp())
    Path("net.py").write_text(NET)
    nasprune.save  # noqa: B018 - imported before the forks
    nasprune.search(nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 4, 4), "100%", trials=1)  # so is all that a search loads
    folder()
    search = (*SEARCH, "--trials", str(options.trials))
    code = ended(started(search, "log"))
    begun = time.monotonic()
    folder()
    code = code or ended(started(search, "log"))
    seconds = time.monotonic() - begun
    expected = result()
    print(f"undisturbed: exit code {code}, {seconds:.1f} s", flush=True)
    failed = bool(code)
    for name, scene in (("kill -9", kills), ("two writers", writers)):
        ways: collections.Counter[str] = collections.Counter()
        bad = 0
        for number in range(options.times):
            way, found = scene(search, expected, seconds, rng)
            ways[way] += 1
            if found:
                bad += 1
                print(
                    f"  {name} {number}: {way}: {found}\n{Path('log').read_text(errors='replace')[-2000:]}", flush=True
                )
        print(f"{name}: {options.times} times, {bad} wrong; {dict(sorted(ways.items()))}", flush=True)
        failed = failed or bool(bad)
    sys.exit(failed)


if __name__ == "__main__":
    main()
