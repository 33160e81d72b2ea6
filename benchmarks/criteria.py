"""Seconds and peak memory of every criterion on ResNet-50 at 224 x 224, each in a process of its own.

    python benchmarks/criteria.py [--images 64] [--model vgg11] [NAME ...]

Weights and images are random; neither time nor memory depends on them. Memory is the peak of the whole process, with
the libraries, the model and its trace; seconds are those of scoring alone, on one thread.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

SECONDS_WITHOUT_DATA = 5
GIB = 3


def measure(name: str, images: int, net: str) -> dict[str, float]:
    """Scores a network of torchvision by one criterion; seconds, and GiB of the process before and at its peak."""
    import torch
    import torchvision

    from nasprune.data import ArrayDataset
    from nasprune.run.names import scorer
    from nasprune.run.trace import trace

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torchvision.models.get_model(net, weights=None).eval()
    graph = trace(model, torch.zeros(1, 3, 224, 224))
    criterion = scorer(name)
    data = ArrayDataset(torch.randn(images, 3, 224, 224), torch.arange(images) % 1000) if criterion.needs_data else None
    before = peak()
    start = time.perf_counter()
    criterion.scores(model, graph, data=data)
    return {"seconds": time.perf_counter() - start, "before": before, "peak": peak(), "data": criterion.needs_data}


def peak() -> float:
    """Largest resident size of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--model", default="resnet50", help="another network of torchvision")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.images, options.model)))
        return
    from nasprune import registry

    names = options.names or [entry.name for entry in registry.entries("criteria")]
    table = Table(
        "criterion", "needs", "seconds", "peak GiB", "of it before scoring", "", title=f"{options.model}, one thread"
    )
    over = False
    for name in names:
        command = [sys.executable, __file__, "--one", name, "--images", str(options.images), "--model", options.model]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            table.add_row(name, "", "", "", "", f"failed: {done.stderr.strip().splitlines()[-1]}")
            over = True
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        late = not found["data"] and found["seconds"] > SECONDS_WITHOUT_DATA
        large = found["peak"] > GIB
        over |= late or large
        verdict = " ".join(word for word, wrong in (("too slow", late), ("too large", large)) if wrong) or "ok"
        needs = f"{options.images} images" if found["data"] else "weights"
        numbers = (f"{found['seconds']:.1f}", f"{found['peak']:.2f}", f"{found['before']:.2f}")
        table.add_row(name, needs, *numbers, verdict)
    Console().print(table)
    sys.exit(over)


if __name__ == "__main__":
    main()
