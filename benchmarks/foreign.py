"""E5: a supernet that knows nothing of nasprune, trimmed to 60 % of its MACs, and what a training step then costs."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from benchmarks.digits import BATCH, Effort, digits, log
from nasprune import Supernet
from nasprune.data import ArrayDataset, DataSplits
from nasprune.data.batches import batches
from nasprune.supernet.price.counting import count_module
from nasprune.supernet.report.accuracy import accuracy
from nasprune.supernet.train.training import architecture_of, train, tuned
from tests.supernet.foreign import PRIMITIVES, DartsNet

CHANNELS, CELLS, RESOLUTION = 4, 3, 16
BUDGET = "60%"
WITHIN = 0.8
"""How much of the share of FLOPs removed time and memory should fall by."""


def adapted(net: DartsNet) -> Supernet:
    """All that a user writes for a supernet of the DARTS authors' kind."""
    return Supernet.from_model(
        net,
        torch.randn(2, 3, RESOLUTION, RESOLUTION),
        op_names=PRIMITIVES,
        group=lambda place: f"{'reduce' if place.cell.reduction else 'normal'}/{place.index}",
        weights=lambda place: (net.alphas_reduce if place.cell.reduction else net.alphas_normal)[place.index],
    )


def enlarged(data: DataSplits) -> DataSplits:
    """The digits as images (3, 16, 16)."""

    def part(images: ArrayDataset) -> ArrayDataset:
        larger = nn.functional.interpolate(images.images, size=RESOLUTION, mode="bilinear", align_corners=False)
        return ArrayDataset(larger.expand(-1, 3, -1, -1).contiguous(), images.labels)

    names = ("train", "calibration", "validation", "test")
    parts = {name: part(getattr(data, name)) for name in names}
    return replace(data, input_shape=(3, RESOLUTION, RESOLUTION), **parts)


def step(net: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Forward and backward, as training does it."""
    net.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(net(images), labels).backward()


def saved_bytes(net: nn.Module, images: Tensor, labels: Tensor) -> int:
    """What autograd holds on to at the end of a forward pass, each storage once: the peak of the activations."""
    found: dict[int, int] = {}
    held = []

    def pack(tensor: Tensor) -> Tensor:
        held.append(tensor)  # keeps the storage alive, so that no other takes its address
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = nn.functional.cross_entropy(net(images), labels)
    del loss
    return sum(found.values())


def step_times(nets: Mapping[str, nn.Module], run: Callable[[nn.Module], None], times: int) -> dict[str, float]:
    """Median seconds of each, taken in turn so that a busy machine hurts all alike."""
    found: dict[str, list[float]] = {name: [] for name in nets}
    for number in range(times + 1):
        for name, net in nets.items():
            start = time.perf_counter()
            run(net)
            if number:  # the first is a warm-up
                found[name].append(time.perf_counter() - start)
    return {name: median(seconds) for name, seconds in found.items()}


def experiment(seed: int, effort: Effort) -> dict[str, Any]:
    """Everything that E5 measures, as JSON holds it."""
    data = enlarged(digits(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = DartsNet(CHANNELS, CELLS, spread=1e-3)
    start = time.perf_counter()
    structure = adapted(net).structure
    trained = train(net, data, architecture=partial(architecture_of, structure), epochs=effort.tuning, seed=seed)
    log.info("supernet trained in %.0f s", time.perf_counter() - start)
    supernet = adapted(trained)  # the alphas of the trained copy
    images, labels = next(batches(data.train, BATCH))
    trained.eval()
    with torch.no_grad():
        plain = trained(images)
        with supernet.gated({choice.name: torch.ones(len(choice.ops)) for choice in supernet.choices}):
            difference = float((trained(images) - plain).abs().max())
    start = time.perf_counter()
    result = supernet.trim(BUDGET, scorer="perturbation(batches=1)", count="macs", data=data, seed=seed)
    log.info("trimmed in %.0f s", time.perf_counter() - start)
    report = result.report
    counted = count_module(result.model, (1, 3, RESOLUTION, RESOLUTION))
    after = tuned(result.supernet.structure, effort.tuning, data=data, seed=seed).net
    nets = {"before": copy.deepcopy(trained).train(), "after": copy.deepcopy(result.model).train()}
    seconds = step_times(nets, lambda net: step(net, images, labels), effort.timed)
    memory = {name: saved_bytes(net, images, labels) for name, net in nets.items()}
    test = list(batches(data.test, 256))
    device = torch.device("cpu")
    return {
        "mixed": len(supernet.structure.mixed),
        "mixed_expected": 14 * CELLS,
        "choices": len(supernet.choices),
        "choices_expected": 28,
        "gates_difference": difference,
        "macs_before": report.before.macs,
        "macs_after": counted.macs,
        "macs_predicted": report.predicted.macs,
        "macs_budget": int(0.6 * report.before.macs),
        "flops_share": report.after.fvcore / report.before.fvcore,
        "step_share": seconds["after"] / seconds["before"],
        "memory_share": memory["after"] / memory["before"],
        "step_seconds": seconds,
        "memory_bytes": memory,
        "candidates_share": sum(map(len, report.kept.values())) / sum(map(len, report.scores.values())),
        "test_before": accuracy(trained, test, device, seed),
        "test_trimmed": accuracy(result.model.eval(), test, device, seed),
        "test_tuned": accuracy(after.eval(), test, device, seed),
        "rows": [(row.scorer, row.overlap, row.macs, row.accuracy, row.reestimated) for row in report.rows],
        "checks": [(check.name, check.value, check.verdict) for check in report.checks],
    }


def table(record: Mapping[str, Any]) -> Table:
    """What was measured, what was wanted, and whether it is."""
    shown = Table("what", "measured", "wanted", "", title="E5: a foreign supernet trimmed to 60 % of its MACs")
    fall = 1 - WITHIN * (1 - record["flops_share"])
    rows = [
        ("mixed operations found", record["mixed"], str(record["mixed_expected"]), record["mixed_expected"]),
        ("choices", record["choices"], str(record["choices_expected"]), record["choices_expected"]),
        ("logits moved by gates of one", record["gates_difference"], "0", 0.0),
        ("MACs after, counted", record["macs_after"], "as predicted", record["macs_predicted"]),
    ]
    for what, measured, wanted, value in rows:
        shown.add_row(what, f"{measured:,}", wanted, _verdict(measured == value))
    budget = record["macs_budget"]
    shown.add_row(
        "MACs after, counted", f"{record['macs_after']:,}", f"<= {budget:,}", _verdict(record["macs_after"] <= budget)
    )
    shown.add_row("FLOPs kept", f"{record['flops_share']:.1%}", "", "")
    for what, name in (("seconds of a training step", "step_share"), ("bytes saved for backward", "memory_share")):
        shown.add_row(
            f"{what}, after / before", f"{record[name]:.3f}", f"<= {fall:.3f}", _verdict(record[name] <= fall)
        )
    for what in ("before", "trimmed", "tuned"):
        shown.add_row(f"test accuracy, {what}", f"{record[f'test_{what}']:.1%}", "", "")
    return shown


def _verdict(holds: bool) -> str:
    return "[green]yes[/]" if holds else "[red]no[/]"
