"""Where a cut network is compared with the dense one on the way: outputs of modules that both have.

A tap is the output of a block that stays, or, outside of blocks, of a convolution or linear layer, behind its batch
norm where it has one. Of the dense network's output only the channels count that the cut network still has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm

from nasprune.calibration.layers import is_layer
from nasprune.common.calls import removed_after
from nasprune.cut.plan import PrunePlan
from nasprune.errors import InputError, NaspruneError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph
from nasprune.graph.program import module_stack, operator, signature


@dataclass(frozen=True)
class Tap:
    """A module that runs once in both networks. kept: its dense output's channels that stay, along `axis`; or all."""

    path: str
    kept: Tensor | None
    axis: int

    def of_dense(self, output: Tensor) -> Tensor:
        """The part of the dense output that the cut network has."""
        return output if self.kept is None else output.index_select(self.axis, self.kept.to(output.device))


def taps(graph: ModelGraph, plan: PrunePlan, part: nn.Module) -> tuple[Tap, ...]:
    """The modules to compare by, in order of execution. part: the dense network, or what the graph's scope names."""
    program, keep = graph.program, graph.unit_mask(plan.keep)
    results = _results(graph, dict(part.named_modules()))
    gone = tuple(f"{name}." for name in plan.drop)
    found = []
    for path, node in results.items():
        if path in plan.drop or path.startswith(gone or "\0"):
            continue
        factors = graph.values.get(node.name, ())
        if not factors:
            found.append(Tap(path, None, 0))
        elif len(factors) == 1 and factors[0].units.size == factors[0].units.shape[factors[0].cut]:
            stays = torch.from_numpy(keep[factors[0].units.reshape(-1)])
            found.append(Tap(path, None if bool(stays.all()) else stays.nonzero()[:, 0], factors[0].cut))
    order = {node.name: number for number, node in enumerate(program.live)}
    return tuple(sorted(found, key=lambda tap: order.get(results[tap.path].name, 0)))


def check_dense(plan: PrunePlan, teacher: nn.Module, then: str) -> None:
    """Raises InputError unless the plan was made for a network like `teacher`. then: what to do."""
    try:
        plan.check_signature(signature(submodule(teacher, plan.scope)))
    except NaspruneError as error:
        raise InputError(
            f"`teacher` must be the dense network of the result, whose features are compared: {error}; {then}"
        ) from error


def _results(graph: ModelGraph, modules: Mapping[str, nn.Module]) -> dict[str, Node]:
    """Path -> the operation whose result the module gives, for blocks and for layers that run once."""
    program, blocks = graph.program, {block.name: set(block.nodes) for block in graph.blocks}
    stacks = {node: module_stack(node) for node in program.live}
    repeated = {path.partition("@")[0] for stack in stacks.values() for path in stack if "@" in path}
    inside = tuple(f"{name}." for name in blocks) or "\0"
    found: dict[str, Node] = {}
    for node in program.live:
        path = program.owner(node)
        behind = next(iter(node.users), None)
        normed = behind is not None and operator(behind) == "batch_norm" and len(node.users) == 1
        module = modules.get(path)
        layer = isinstance(module, _BatchNorm) or (module is not None and is_layer(module))
        if layer and _computes(node) and not normed and path not in repeated and not path.startswith(inside):
            found[path] = node
    for path, names in blocks.items():
        results = [program.by_name[name] for name in names if _leaves(program.by_name[name], names)]
        if path not in repeated and len(results) == 1:
            found[path] = results[0]
    return found


def _computes(node: Node) -> bool:
    """Whether the operation is the layer's or the norm's own; what pads its input first is not."""
    return operator(node) in ("linear", "batch_norm") or operator(node).startswith("conv")


def _leaves(node: Node, names: set[str]) -> bool:
    return any(user.name not in names for user in node.users)


@contextmanager
def watched(part: nn.Module, where: Sequence[Tap]) -> Iterator[dict[str, Tensor]]:
    """Inside, every run leaves the outputs of the tapped modules here; those that give no tensor leave none."""
    seen: dict[str, Tensor] = {}

    def keep(path: str) -> object:
        def hook(_: nn.Module, args: object, output: object) -> None:
            if isinstance(output, Tensor):
                seen[path] = output

        return hook

    handles = [part.get_submodule(tap.path).register_forward_hook(keep(tap.path)) for tap in where]  # type: ignore[arg-type]
    with removed_after(handles):
        yield seen
