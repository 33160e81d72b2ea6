"""Parameters and buffers cut along the axes on which units go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from nasprune.graph.model import AxisUnits, Bools, ModelGraph


def smaller(
    model: nn.Module, graph: ModelGraph, keep: Bools, dropped: Sequence[str], changed: Mapping[str, Tensor]
) -> dict[int, Tensor]:
    """What takes the place of each parameter and buffer that loses something, by the identity of the whole one.

    keep: see `ModelGraph.unit_mask`. changed: values, by name, that are not the model's own before they are cut.
    """
    cut: dict[int, Tensor] = {}
    for name in dict.fromkeys((*graph.params, *changed)):
        axes = [axis for axis in graph.params.get(name, ()) if not keep[axis.units].all()]
        if any(name.startswith(f"{block}.") for block in dropped) or not (axes or name in changed):
            continue
        whole = tensor_of(model, name)
        if id(whole) not in cut:
            data = _sliced(changed.get(name, whole.detach()), axes, keep)
            cut[id(whole)] = nn.Parameter(data, whole.requires_grad) if isinstance(whole, nn.Parameter) else data
    return cut


def _sliced(data: Tensor, axes: Sequence[AxisUnits], keep: Bools) -> Tensor:
    parted = [axis for axis in axes if len(axis.units) > 1]
    rows = np.ones(data.shape[:1], dtype=np.bool_)
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
    return data


def cut_positions(whole: Tensor, axes: Sequence[AxisUnits], keep: Bools) -> Tensor:
    """For each element of what is left of `whole`, its place in the flattened `whole`."""
    places = torch.arange(whole.numel(), device="cpu").reshape(whole.shape)
    return _sliced(places, [axis for axis in axes if not keep[axis.units].all()], keep)


def tensor_of(model: nn.Module, name: str) -> Tensor:
    """The parameter or buffer of that name."""
    path, _, leaf = name.rpartition(".")
    found = getattr(model.get_submodule(path), leaf)
    assert isinstance(found, Tensor)
    return found
