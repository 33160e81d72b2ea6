"""Parameters and buffers cut along the axes on which units go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from nasprune.graph.model import AxisUnits, Bools, ModelGraph


def slice_tensors(model: nn.Module, graph: ModelGraph, keep: Bools, dropped: Sequence[str]) -> None:
    """Slices all parameters and buffers of `model`, in place; tied ones stay tied. keep: see `ModelGraph.unit_mask`."""
    aliases = _aliases(model)
    sliced: dict[int, Tensor] = {}
    for name, axes in graph.params.items():
        if any(name.startswith(f"{block}.") for block in dropped):
            continue
        if all(keep[axis.units].all() for axis in axes):
            continue
        old = tensor_of(model, name)
        new = sliced.setdefault(id(old), _sliced(old, axes, keep))
        for alias in aliases.get(id(old), [name]):
            _set_tensor(model, alias, new)


def _sliced(value: Tensor, axes: Sequence[AxisUnits], keep: Bools) -> Tensor:
    data = value.detach()
    parted = [axis for axis in axes if len(axis.units) > 1]
    rows = np.ones(data.shape[0], dtype=np.bool_)
    for axis in axes:
        if len(axis.units) == 1:
            positions = axis.positions(keep)[0]
            if axis.axis == 0:
                rows = positions
            data = data.index_select(axis.axis, torch.from_numpy(np.flatnonzero(positions)).to(data.device))
    for axis in parted:
        positions = axis.positions(keep).repeat(rows.size // len(axis.units), axis=0)[rows]
        mask = torch.from_numpy(positions).to(data.device)
        data = data[mask].reshape(len(positions), -1, *data.shape[2:])
    data = data.clone(memory_format=torch.preserve_format)
    return nn.Parameter(data, value.requires_grad) if isinstance(value, nn.Parameter) else data


def tensor_of(model: nn.Module, name: str) -> Tensor:
    """The parameter or buffer of that name."""
    path, _, leaf = name.rpartition(".")
    found = getattr(model.get_submodule(path), leaf)
    assert isinstance(found, Tensor)
    return found


def _set_tensor(model: nn.Module, name: str, value: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    if isinstance(value, nn.Parameter):
        owner._parameters[leaf] = value
    else:
        owner._buffers[leaf] = value


def _aliases(model: nn.Module) -> Mapping[int, list[str]]:
    """Tensor identity -> all names it has in the model."""
    found: dict[int, list[str]] = {}
    for name, value in [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]:
        found.setdefault(id(value), []).append(name)
    return found
