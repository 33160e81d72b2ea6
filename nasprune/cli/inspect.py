"""`nasprune inspect`: what can be pruned, what each group and block costs, and why the rest is frozen."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from torch import nn

from nasprune.base import Criterion
from nasprune.calibration.scoring import WeightContext, score_all
from nasprune.cli.screen import answer, printed, say, stdout, table
from nasprune.cost.budget import Cost
from nasprune.cost.flops import CostModel
from nasprune.cost.units import percent
from nasprune.cut.proof import Proof
from nasprune.cut.selection import select
from nasprune.cut.verify import prove
from nasprune.errors import InputError
from nasprune.graph.drawn import draw
from nasprune.graph.model import Block, CoupledGroup, ModelGraph
from nasprune.models.loading import load_model
from nasprune.registry import load
from nasprune.run.names import op_rules, search_space
from nasprune.run.trace import trace
from nasprune.space.choices import Decision


def run(
    model: str,
    weights: str | None,
    input_size: str | None,
    scope: str | None,
    plugins: tuple[Path, ...],
    *,
    verify: bool,
    html: Path | None = None,
    dot: Path | None = None,
) -> int:
    """Prints the groups and blocks of a model, and draws its graph to files. 1 if nothing is free, else 0."""
    for path, suffix in ((html, ".html"), (dot, ".dot")):
        if path is not None and path.suffix != suffix:
            raise InputError(f"the picture must have a name ending with {suffix}, got {str(path)!r}; rename it")
    loaded = load_model(model, weights=weights, input_size=input_size)
    say(f"tracing {model} at {'×'.join(map(str, loaded.shape))}")
    graph = trace(loaded.model, loaded.example_inputs(), scope, rules=op_rules(plugins or None))
    for path in (html, dot):
        if path is not None:
            say(f"the graph is drawn in {draw(graph, path, title=model)}")
    prices = CostModel(graph)
    names = [group.name for group in graph.groups] + [block.name for block in graph.blocks]
    shares = {name: _share(prices, name) for name in names}
    proof = _half_proof(loaded.model, graph) if verify and (graph.free_groups or graph.free_blocks) else None
    answer(_record(model, graph, prices.dense, shares, proof))
    _print(model, graph, prices.dense, shares, proof)
    if graph.free_groups or graph.free_blocks:
        return 0
    say(f"nothing of {model} can be pruned; the reasons stand above")
    return 1


def _share(prices: CostModel, name: str) -> tuple[float, float]:
    """Shares of the dense FLOPs and parameters that would go with the whole group or block."""
    without, dense = prices.costs([{name: 0}])[0], prices.dense
    return 1 - without.flops / max(dense.flops, 1), 1 - without.params / max(dense.params, 1)


def _half_proof(model: nn.Module, graph: ModelGraph) -> Proof:
    """Keeps half of every free group, drops every second free block, and proves that cut."""
    space = search_space(graph)
    half = dict(space.scaled(0.5))
    half |= {choice.name: number % 2 for number, choice in enumerate(space.blocks)}
    criterion: type[Criterion] = load("criteria", "l2")
    scores = score_all(graph, criterion(), WeightContext(model, graph, seed=0))
    return prove(model, graph, select(graph, scores, Decision.of(half))).proof


def _state(item: CoupledGroup | Block) -> str:
    if item.frozen_because is not None:
        return item.frozen_because
    if not item.free:
        return "one unit only"
    parts = item.parts if isinstance(item, CoupledGroup) else ""
    return f"free, {parts}" if parts else "free"


def _members(group: CoupledGroup) -> str:
    """The modules whose outputs the group is made of, the first two by name."""
    made = list(dict.fromkeys(part.param.rpartition(".")[0] for part in group.slices if part.role == "out"))
    made = made or list(dict.fromkeys(part.param for part in group.slices))
    return ", ".join(made[:2]) + (f" and {len(made) - 2} more" if len(made) > 2 else "")


def _print(
    model: str, graph: ModelGraph, dense: Cost, shares: dict[str, tuple[float, float]], proof: Proof | None
) -> None:
    console = stdout()
    rows = [
        (group.name, str(group.width), _members(group), *map(percent, shares[group.name]), _state(group))
        for group in graph.groups
    ]
    head = ("group", "width", "made by", "FLOPs", "params", "state")
    console.print(table(head, rows, right=(1, 3, 4)))
    if graph.blocks:
        blocks = [(block.name, *map(percent, shares[block.name]), _state(block)) for block in graph.blocks]
        console.print(table(("block", "FLOPs", "params", "state"), blocks, right=(1, 2)))
    if graph.skipped:
        console.print(table(("operation or layer", "why its channels are frozen"), sorted(graph.skipped.items())))
    printed(
        console,
        "",
        f"{model}: {dense}; {len(graph.free_groups)} of {len(graph.groups)} groups and "
        f"{len(graph.free_blocks)} of {len(graph.blocks)} blocks can be pruned. A share is what would go with all of "
        "the group; shares overlap where groups meet.",
    )
    if proof is not None:
        printed(
            console,
            f"half of it cut and proved: error {proof.max_error:.1e} of the largest output in {proof.dtype} (allowed "
            f"{proof.tolerance:.0e}), {proof.flops:,} FLOPs counted, {proof.predicted_flops:,} predicted",
            *(f"had to be left whole: {name}: {reason}" for name, reason in proof.frozen.items()),
        )


def _record(
    model: str, graph: ModelGraph, dense: Cost, shares: dict[str, tuple[float, float]], proof: Proof | None
) -> dict[str, object]:
    groups = [
        {
            "name": group.name,
            "width": group.width,
            "multiple_of": group.multiple_of,
            "free": group.free,
            "frozen_because": group.frozen_because,
            "flops_share": shares[group.name][0],
            "params_share": shares[group.name][1],
            "members": [asdict(part) for part in group.slices],
        }
        for group in graph.groups
    ]
    blocks = [
        {
            "name": block.name,
            "free": block.free,
            "frozen_because": block.frozen_because,
            "flops_share": shares[block.name][0],
            "params_share": shares[block.name][1],
        }
        for block in graph.blocks
    ]
    record: dict[str, object] = {
        "model": model,
        "scope": graph.scope,
        "dense": asdict(dense),
        "groups": groups,
        "blocks": blocks,
        "skipped": dict(graph.skipped),
    }
    return record | ({"proof": asdict(proof)} if proof is not None else {})
