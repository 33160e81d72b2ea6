"""Tensors of a network in training as rows, one for every unit of a group, to be read and written in place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nasprune.calibration.consumers import side_by_side
from nasprune.graph.model import AxisSlice, AxisUnits, CoupledGroup, ModelGraph


@dataclass(frozen=True)
class Slots:
    """A `LiveSlots`. places: (width, k), where in the flat tensor each number of a unit lies, -1 where it has none."""

    tensor: Tensor
    places: Tensor
    role: str
    is_norm: bool

    @property
    def is_trained(self) -> bool:
        return isinstance(self.tensor, nn.Parameter)

    def read(self) -> Tensor:
        flat = self.tensor.detach().reshape(-1)
        rows = flat[self.places.clamp(min=0)]
        return torch.where(self.places >= 0, rows, torch.zeros_like(rows))

    def write(self, rows: Tensor) -> None:
        there = self.places >= 0
        flat = self.tensor.detach().reshape(-1).clone()
        flat[self.places[there]] = rows[there].to(flat.dtype)
        with torch.no_grad():
            self.tensor.copy_(flat.view_as(self.tensor))


def slots_of(part: nn.Module, graph: ModelGraph, group: CoupledGroup) -> list[Slots]:
    """Everything that the group's units own. part: the network, or what the graph's scope names."""
    tensors: dict[str, Tensor] = {
        **dict(part.named_buffers(remove_duplicate=False)),
        **dict(part.named_parameters(remove_duplicate=False)),
    }
    number = next(index for index, one in enumerate(graph.groups) if one.name == group.name)
    found: dict[tuple[int, int], Slots] = {}
    for piece in group.slices:
        tensor = tensors[piece.param]
        if not tensor.is_floating_point():
            continue
        axis = next(units for units in graph.params[piece.param] if units.axis == piece.axis)
        places = _places(tensor, axis, graph, number, group.width)
        slots = Slots(tensor, places.to(tensor.device), piece.role, _is_norm(piece, tensors))
        found.setdefault((id(tensor), piece.axis), slots)
    return list(found.values())


def _places(tensor: Tensor, axis: AxisUnits, graph: ModelGraph, number: int, width: int) -> Tensor:
    numbers = torch.arange(tensor.numel(), device="cpu").reshape(tensor.shape)
    parts, size = axis.units.shape
    if parts == 1:
        positions = numbers.movedim(axis.axis, 0).reshape(size, -1)
    else:
        stretches = numbers.reshape(parts, -1, *numbers.shape[1:])
        positions = stretches.movedim(axis.axis + 1, 1).reshape(parts * size, -1)
    units = axis.units.reshape(-1)
    taken = np.flatnonzero(units >= 0)
    taken = taken[graph.unit_group[units[taken]] == number]
    table = torch.from_numpy(side_by_side(taken, graph.unit_index[units[taken]], width))
    rows = positions[table.clamp(min=0)]
    rows[table < 0] = -1
    return rows.reshape(width, -1)


def _is_norm(piece: AxisSlice, tensors: dict[str, Tensor]) -> bool:
    owner, _, leaf = piece.param.rpartition(".")
    return piece.role == "scale" and leaf == "weight" and f"{owner}.running_mean".lstrip(".") in tensors
