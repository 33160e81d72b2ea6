"""Tiny nets, plans and reports shared by tests."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from nasprune.cost.budget import Cost
from nasprune.cut.plan import PrunePlan
from nasprune.cut.proof import Proof
from nasprune.cut.recorded import InputSpec, TensorSpec
from nasprune.cut.surgery import build
from nasprune.graph.program import signature
from nasprune.models.nets import ResidualNet
from nasprune.run.report import FrontPoint, GroupOutcome, SearchReport


@dataclass(frozen=True)
class Outcome:
    """Looks like a search result."""

    model: nn.Module
    plan: PrunePlan
    report: SearchReport


def tiny_net(seed: int = 0, blocks: int = 1) -> ResidualNet:
    """Input (N, 1, 8, 8), ten classes, two stages of so many blocks, a thousand or so parameters in each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResidualNet(input_shape=(1, 8, 8), widths=(4, 8), blocks=blocks, num_classes=10).eval()


def tiny_report(**changes) -> SearchReport:
    report = SearchReport(
        settings={"model": "tests.toys:tiny_net", "budget": "50%", "seed": "0"},
        budget="50% of FLOPs",
        dense=Cost(2000, 100, 300),
        cut=Cost(1000, 40, 200),
        score=0.9,
        dense_score=1.0,
        trials=7,
        seconds=1.5,
        groups=(GroupOutcome("conv1", 16, 8), GroupOutcome("linear", 10, 10, "network output")),
        dropped_blocks=("layer1.1",),
        proof=Proof(True, 1e-15, 1e-9, "float64", 1000, 1000),
        measured={"latency_ms dense": 2.0, "latency_ms cut": 1.0},
        versions={"torch": "2"},
        notes=("No weights were given.",),
        front=(FrontPoint(4, "ab" * 8, Cost(900, 40, 100), 0.8125), FrontPoint(6, "cd" * 8, Cost(1000, 40, 200), 0.9)),
    )
    return replace(report, **changes)


def tiny_outcome(graph, model, **changes) -> Outcome:
    """The net with every free group halved and every free block dropped."""
    keep = {group.name: tuple(range(group.width // 2)) for group in graph.free_groups if not group.partitions}
    keep = {name: kept for name, kept in keep.items() if not any(name in block.groups for block in graph.free_blocks)}
    plan = PrunePlan(
        signature=signature(model),
        keep=keep,
        drop=tuple(sorted(block.name for block in graph.free_blocks)),
        inputs=InputSpec((TensorSpec((1, 1, 8, 8), "float32"),)),
    )
    return Outcome(build(model, graph, plan), plan, tiny_report(**changes))
