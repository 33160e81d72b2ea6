"""Whether a training that is killed at any moment goes on to the same weights, bit for bit.

    python -m benchmarks.kills_training [--times 20] [--seed 0] [--rows GLOB]

A small network with batch norm and dropout is fine-tuned, and trained with strategies, once undisturbed. Then the same
is begun, killed with SIGKILL at random moments up to three times, and repeated to its end, until each row was killed
`--times` times. States are written after every epoch and several times in each. Every time the weights must be those of
the undisturbed one, and nothing but the two files of the last state may be left. The exit code is 1 where anything is
wrong.
"""

from __future__ import annotations

import argparse
import logging
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import nasprune
from nasprune.models.weights import to_bytes
from nasprune.train import training

IMAGES = torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(400) % 10


OFTEN: dict[str, Any] = {"save_every": 0.2}
STEPS = 4
"""Of an epoch, after which its state may be written: epochs are short here."""


def net() -> nn.Module:
    torch.manual_seed(3)
    body = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(288, 10)
    return nn.Sequential(*body)


def tuned(out: Path | None) -> bytes:
    model = nasprune.finetune(net(), IMAGES, epochs=12, batch_size=16, lr=0.05, out=out, on_step=_slow, **OFTEN)
    return to_bytes(model.state_dict())


def pruned(strategy: str, out: Path | None) -> bytes:
    given: dict[str, Any] = {"data": IMAGES, "epochs": 8, "batch_size": 16, "on_step": _slow, **OFTEN}
    found = nasprune.prune(net(), IMAGES[0][:1], "50%", strategy=strategy, out=out, **given)
    return to_bytes(found.model.state_dict()) + found.plan.to_json().encode()


ROWS: Mapping[str, tuple[Callable[[Path | None], bytes], str]] = {
    "fine-tuning": (tuned, "."),
    "csgd": (partial(pruned, "csgd"), "training"),
    "resrep": (partial(pruned, "resrep"), "training"),
}
"""The training, and where below its folder the state lies."""


def _slow(_: object) -> None:
    time.sleep(0.002)


def started(name: str, out: Path, result: Path) -> subprocess.Popen[str]:
    """A process of its own that trains and writes its weights to `result`; its modules are read when this returns."""
    command = [sys.executable, "-m", "benchmarks.kills_training", "--train", name, str(out), str(result)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def killed(name: str, times: int, rng: random.Random) -> tuple[str, int]:
    """What came of it, in words, and how often it was wrong."""
    below = ROWS[name][1]
    wrong = kills = rounds = 0
    expected, seconds = undisturbed(name)
    while kills < times:
        with tempfile.TemporaryDirectory() as place:
            out, result = Path(place) / "out", Path(place) / "weights"
            for _ in range(rng.randint(1, 3)):
                child = started(name, out, result)
                time.sleep(rng.uniform(0, seconds))
                child.kill()
                kills += child.wait() == -signal.SIGKILL
            code = started(name, out, result).wait()
            fine = code == 0 and result.read_bytes() == expected and len(list((out / below).iterdir())) == 2
            rounds, wrong = rounds + 1, wrong + (not fine)
    told = f"{kills} kills in {rounds} trainings of {seconds:.1f} s: {wrong} with other weights or files left behind"
    return told, wrong


def undisturbed(name: str) -> tuple[bytes, float]:
    """The weights, and the seconds that training them took."""
    with tempfile.TemporaryDirectory() as place:
        result = Path(place) / "weights"
        child = started(name, Path(place) / "out", result)
        start = time.perf_counter()
        if child.wait():
            raise RuntimeError("the undisturbed training failed")
        return result.read_bytes(), time.perf_counter() - start


def train(name: str, out: Path, result: Path) -> None:
    """What a process of its own does."""
    training.SEGMENT = STEPS
    print("ready", flush=True)
    result.write_bytes(ROWS[name][0](out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="how often each is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--rows", default="*", help="glob, such as 'csgd'")
    parser.add_argument(
        "--train", nargs=3, metavar=("ROW", "OUT", "WEIGHTS"), help="what processes to kill are begun with"
    )
    options = parser.parse_args()
    if options.train:
        torch.set_num_threads(1)
        logging.disable(logging.WARNING)
        name, out, result = options.train
        train(name, Path(out), Path(result))
        return
    rng, wrong = random.Random(options.seed), 0
    for name in ROWS:
        if fnmatchcase(name, options.rows):
            told, times = killed(name, options.times, rng)
            print(f"{name}: {told}", flush=True)
            wrong += times
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
