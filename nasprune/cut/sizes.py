"""The sizes that torch's own modules record of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from nasprune.graph.model import Bools, ModelGraph
from nasprune.graph.program import operator


def update_sizes(model: nn.Module, graph: ModelGraph, keep: Bools, dropped: Sequence[str]) -> None:
    """Sets them to those of the weights and inputs that are left. keep: see `ModelGraph.unit_mask`."""
    _update_weighted(model)
    _update_norms(model, graph, keep, dropped)


def _update_weighted(model: nn.Module) -> None:
    """Sets the sizes that convolution and linear modules record to those of their weights."""
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            _update_convolution(module)
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.PReLU):
            module.num_parameters = module.weight.numel()
        elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.num_embeddings, module.embedding_dim = module.weight.shape
        elif isinstance(module, nn.RNNBase):
            _update_recurrent(module)
        elif isinstance(module, nn.RNNCellBase):
            module.input_size, module.hidden_size = module.weight_ih.shape[1], module.weight_hh.shape[1]


def _update_recurrent(module: nn.RNNBase) -> None:
    """A recurrent module keeps its weights in a list of its own besides."""
    if module.proj_size == 0:
        reads, recurs = cast(Tensor, module.weight_ih_l0), cast(Tensor, module.weight_hh_l0)
        module.input_size, module.hidden_size = reads.shape[1], recurs.shape[1]
    module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]


def _update_convolution(module: nn.modules.conv._ConvNd) -> None:
    first, second = module.weight.shape[:2]
    depthwise = module.groups > 1 and module.in_channels == module.groups
    if module.transposed:
        module.groups = first if depthwise else module.groups
        module.in_channels, module.out_channels = first, second * module.groups
    else:
        module.groups = first * module.groups // module.out_channels if depthwise else module.groups
        module.in_channels, module.out_channels = second * module.groups, first


def _update_norms(model: nn.Module, graph: ModelGraph, keep: Bools, dropped: Sequence[str]) -> None:
    """Sets the sizes that normalisation modules record, with or without parameters, to those of their inputs."""
    for node in graph.program.nodes:
        if node.op != "call_function" or operator(node) not in (
            "batch_norm",
            "instance_norm",
            "layer_norm",
            "rms_norm",
            "group_norm",
        ):
            continue
        owner = graph.program.owner(node).partition("@")[0]
        if any(owner == block or owner.startswith(f"{block}.") for block in dropped):
            continue
        module, source = model.get_submodule(owner), node.all_input_nodes[0]
        for factor in graph.values.get(source.name, ()):
            size = int(keep[factor.units].sum()) * factor.units.shape[factor.cut] // factor.units.size
            _update_norm(module, factor.cut, factor.units.shape[factor.cut], factor.units.ndim, size)


def _update_norm(module: nn.Module, axis: int, old: int, ndim: int, size: int) -> None:
    if isinstance(module, nn.modules.batchnorm._NormBase) and axis == 1:
        module.num_features = size
    elif isinstance(module, nn.GroupNorm) and axis == 1:
        if module.num_groups > 1:
            module.num_groups = module.num_groups * size // module.num_channels
        module.num_channels = size
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        shape = list(module.normalized_shape)
        if ndim - axis <= len(shape):
            shape[axis - ndim] = size
            module.normalized_shape = tuple(shape)
