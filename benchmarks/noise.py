"""E4: which scorers keep noise? RobustDARTS' toy spaces S4 and S2 (Zela et al. 2020, arXiv:1909.09656) on digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from rich.table import Table
from torch import Tensor

from benchmarks.digits import Effort, all_scores, digits, size, trained_supernet
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.trim.discrete import discretised
from search_spaces.darts import Darts

SIZE = size(4, 3)
TOYS = {"S4": ("noise", "sep_conv_3x3"), "S2": ("skip_connect", "sep_conv_3x3")}
"""Toy space -> what is counted, and the other candidate."""
SCORERS = (
    "paths",
    "perturbation",
    "perturbation(errors=0)",
    "perturbation(metric=accuracy)",
    "gate_taylor",
    "gate_fisher",
    "alpha",
    "nwot",
    "synflow",
    "dso",
    "asap",
    "flops_order",
    "random",
)


def shares(structure: Structure, scores: Mapping[str, Tensor], op: str) -> tuple[float, float]:
    """How often `op` stays: with one candidate of each of the 28 choices, and in the 16 slots of the genotype."""
    first = [choice.ops[int(scores[choice.name].argmax())] == op for choice in structure.choices]
    genotype = discretised(structure, scores, None, SIZE, inherit=False).genotype
    assert genotype is not None
    slots = [gene.op == op for genes in genotype.cells.values() for gene in genes]
    return mean(first), mean(slots)


def experiment(
    seeds: Sequence[int],
    effort: Effort,
    scorers: Sequence[str] = SCORERS,
    toys: Sequence[str] = tuple(TOYS),
    cache: Path | None = None,
) -> dict[str, Any]:
    """Everything that E4 measures, as JSON holds it: one record for each toy space, seed and scorer.

    cache: folder of trained supernets, so that scorers of a later run are judged on the same ones.
    """
    rows = []
    for toy in toys:
        ops = TOYS[toy]
        for seed in seeds:
            data, epochs = digits(seed), effort.noise_epochs
            file = cache / f"{toy}-{seed}-{epochs}.safetensors" if cache is not None else None
            structure = trained_supernet(Darts(ops), SIZE, data, epochs, seed, file)
            for name, (scores, seconds) in all_scores(structure, scorers, data, seed).items():
                edges, slots = shares(structure, scores, ops[0])
                rows.append(
                    {"toy": toy, "seed": seed, "scorer": name, "edges": edges, "slots": slots, "seconds": seconds}
                )
    return {"rows": rows}


def table(record: Mapping[str, Any]) -> Table:
    """One line for each scorer: means over seeds, and the worst seed."""
    rows = record["rows"]
    toys = {toy: ops for toy, ops in TOYS.items() if any(row["toy"] == toy for row in rows)}
    head = ["scorer"]
    for toy, ops in toys.items():
        head += [f"{toy}: {ops[0]} on edges %", "worst seed %", "in genotypes %"]
    shown = Table(*head, "seconds", title="E4: how often the operation that computes nothing stays")
    for name in dict.fromkeys(row["scorer"] for row in rows):
        cells = [name]
        for toy in toys:
            own = [row for row in rows if row["scorer"] == name and row["toy"] == toy]
            edges = [100 * row["edges"] for row in own]
            cells += [f"{mean(edges):.1f}", f"{max(edges):.1f}", f"{100 * mean(row['slots'] for row in own):.1f}"]
        shown.add_row(*cells, f"{mean(row['seconds'] for row in rows if row['scorer'] == name):.1f}")
    return shown
