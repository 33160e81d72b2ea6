"""Weight norm: a weight's direction is cut, so its length must shrink to that of the part that stays."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm

from nasprune.cut.tensors import tensor_of
from nasprune.graph.model import Bools, ModelGraph
from nasprune.graph.program import arguments, operator


def shorten(model: nn.Module, graph: ModelGraph, keep: Bools) -> None:
    """Scales the lengths of the still whole weights of `model`, in place. keep: see `ModelGraph.unit_mask`."""
    params = graph.program.params
    done: set[str] = set()
    for node in graph.program.nodes:
        if operator(node) not in ("_weight_norm", "_weight_norm_interface"):
            continue
        args = arguments(node)
        direction, length = params.get(args["v"].name), params.get(args["g"].name)
        if direction is not None and length is not None and length not in done:
            done.add(length)
            _shorten(model, graph, keep, direction, length, int(args.get("dim", 0)))


def _shorten(model: nn.Module, graph: ModelGraph, keep: Bools, direction: str, length: str, dim: int) -> None:
    value = tensor_of(model, direction).detach()
    left = value
    for axis in graph.params.get(direction, ()):
        if axis.axis != dim and len(axis.units) == 1:
            gone = torch.from_numpy(~axis.positions(keep)[0]).to(value.device)
            left = left.index_fill(axis.axis, gone.nonzero().flatten(), 0)
    if left is not value:
        scaled = tensor_of(model, length).detach()
        scaled.copy_(scaled * left_of(left, value, dim).reshape(scaled.shape))


def left_of(left: Tensor, whole: Tensor, dim: int) -> Tensor:
    """The share of each length that stays; in `left`, what goes is zero."""
    return torch.norm_except_dim(left, 2, dim) / torch.norm_except_dim(whole, 2, dim)


def refresh(modules: Iterable[nn.Module]) -> None:
    """Weight norm of the older kind keeps its product as an attribute until the next call: it is computed anew."""
    for module in modules:
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                setattr(module, hook.name, hook.compute_weight(module).detach())
