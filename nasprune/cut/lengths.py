"""Weight norm: a weight's direction is cut, so its length must shrink to that of the part that stays."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm

from nasprune.cut.tensors import tensor_of
from nasprune.graph.model import Bools, ModelGraph
from nasprune.graph.program import arguments, operator


def shortened(model: nn.Module, graph: ModelGraph, keep: Bools) -> dict[str, Tensor]:
    """Lengths of weights that lose a part, by name, for all that stays of them. keep: see `ModelGraph.unit_mask`."""
    params = graph.program.params
    found: dict[str, Tensor] = {}
    for node in graph.program.nodes:
        if operator(node) not in ("_weight_norm", "_weight_norm_interface"):
            continue
        args = arguments(node)
        direction, length = params.get(args["v"].name), params.get(args["g"].name)
        if direction is None or length is None or length in found:
            continue
        whole, own = tensor_of(model, direction).detach(), tensor_of(model, length).detach()
        left = _left(whole, graph, keep, direction, int(args.get("dim", 0)))
        if left is not whole:
            found[length] = own * left_of(left, whole, int(args.get("dim", 0))).reshape(own.shape)
    return found


def _left(whole: Tensor, graph: ModelGraph, keep: Bools, direction: str, dim: int) -> Tensor:
    """The weight with zeros for what it loses within its lengths."""
    left = whole
    for axis in graph.params.get(direction, ()):
        if axis.axis != dim and len(axis.units) == 1:
            gone = torch.from_numpy(~axis.positions(keep)[0]).to(whole.device)
            left = left.index_fill(axis.axis, gone.nonzero().flatten(), 0)
    return left


def left_of(left: Tensor, whole: Tensor, dim: int) -> Tensor:
    """The share of each length that stays; in `left`, what goes is zero."""
    return torch.norm_except_dim(left, 2, dim) / torch.norm_except_dim(whole, 2, dim)


def refresh(modules: Iterable[nn.Module]) -> None:
    """Weight norm of the older kind keeps its product as an attribute until the next call: it is computed anew."""
    for module in modules:
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                setattr(module, hook.name, hook.compute_weight(module).detach())
