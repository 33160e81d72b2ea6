"""Speed of tracing and of cost prediction, as ratios within one run.

    python benchmarks/speed.py

Prediction: decisions a second on ResNet-50, on one core. Tracing: its time over that of torch.export itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
import torchvision
from rich.console import Console
from rich.table import Table

import nasprune
from nasprune.cost.flops import CostModel, measure
from nasprune.cut.surgery import build
from nasprune.cut.trial_plans import half_plan

MODELS = ("resnet50", "mobilenet_v3_large", "densenet121", "efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t")
DECISIONS = 200_000


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time of `work`, after one call to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)


def main() -> None:
    torch.set_num_threads(1)
    console = Console()
    table = Table("model", "torch.export s", "trace s", "trace / export", title="tracing, one thread, 224 x 224")
    for name in MODELS:
        model, inputs = torchvision.models.get_model(name).eval(), torch.randn(1, 3, 224, 224)
        exported = seconds(lambda m=model, x=inputs: torch.export.export(m, (x,), strict=False), 3)
        traced = seconds(lambda m=model, x=inputs: nasprune.trace(m, x), 3)
        table.add_row(name, f"{exported:.2f}", f"{traced:.2f}", f"{traced / exported:.2f}")
    console.print(table)

    model, inputs = torchvision.models.resnet50().eval(), torch.randn(1, 3, 224, 224)
    graph = nasprune.trace(model, inputs)
    prices = CostModel(graph)
    rng = np.random.default_rng(0)
    matrix = rng.integers(1, prices.full + 1, size=(DECISIONS, len(prices.full)))
    predicted = seconds(lambda: prices.rows(matrix))
    counted = seconds(lambda: measure(model, inputs), 3)
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    built = seconds(lambda: build(model, graph, plan), 3)
    table = Table("ResNet-50, one thread", "seconds", "", title="prediction against counting")
    table.add_row(
        "predict one decision", f"{predicted / DECISIONS:.2e}", f"{DECISIONS / predicted:,.0f} decisions a second"
    )
    table.add_row("count with fvcore", f"{counted:.2f}", f"{counted / predicted * DECISIONS:,.0f} x the time")
    table.add_row("build, then count", f"{built + counted:.2f}", f"{(built + counted) / predicted * DECISIONS:,.0f} x")
    console.print(table)


if __name__ == "__main__":
    main()
