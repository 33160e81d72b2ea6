"""What a criterion sees: a group's weights gathered as one row per unit; and the scores of all free groups."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import numpy as np
import torch
from torch import Tensor, nn

from nasprune.base import Criterion, ScoreContext
from nasprune.errors import NaspruneError, PlanError, PluginError
from nasprune.graph.capture import submodule
from nasprune.graph.model import AxisSlice, AxisUnits, CoupledGroup, Ints, ModelGraph


class WeightContext(ScoreContext):
    """A `ScoreContext` over the weights of one model.

    A unit that owns several positions of an axis gets them side by side in its row; rows of units with fewer positions,
    or with none on that tensor, are filled up with zeros.
    """

    def __init__(self, model: nn.Module, graph: ModelGraph, *, seed: int = 0) -> None:
        self._graph = graph
        self._seed = seed
        self._number = {group.name: index for index, group in enumerate(graph.groups)}
        part = submodule(model, graph.scope)
        self._tensors: dict[str, Tensor] = {
            **dict(part.named_buffers(remove_duplicate=False)),
            **dict(part.named_parameters(remove_duplicate=False)),
        }

    def rows(self, group: CoupledGroup) -> Iterator[Tensor]:
        return (self._gather(group, part) for part in group.slices if part.role == "out")

    def columns(self, group: CoupledGroup) -> Iterator[Tensor]:
        return (self._gather(group, part) for part in group.slices if part.role == "in")

    def scales(self, group: CoupledGroup) -> Iterator[Tensor]:
        return (self._gather(group, part) for part in group.slices if self._is_norm_weight(part))

    def generator(self, group: CoupledGroup) -> Random:
        return Random(f"{self._seed}/{group.name}")

    def _is_norm_weight(self, part: AxisSlice) -> bool:
        """A batch norm keeps its weight beside its running statistics, whatever the module's class."""
        owner, _, leaf = part.param.rpartition(".")
        return part.role == "scale" and leaf == "weight" and f"{owner}.running_mean".lstrip(".") in self._tensors

    def _gather(self, group: CoupledGroup, part: AxisSlice) -> Tensor:
        """The slots of one parameter axis as rows (width, k)."""
        if part.param not in self._tensors:
            raise PlanError(f"the model has no {part.param!r}, which its graph names; trace this very model")
        axis = next(units for units in self._graph.params[part.param] if units.axis == part.axis)
        slots = _slots(self._tensors[part.param].detach().to("cpu", torch.float32), axis)
        units = axis.units.reshape(-1)
        taken = np.flatnonzero(units >= 0)
        taken = taken[self._graph.unit_group[units[taken]] == self._number[group.name]]
        owners = self._graph.unit_index[units[taken]]
        order = np.argsort(owners, kind="stable")
        return _side_by_side(slots, taken[order], owners[order], group.width)


def _slots(tensor: Tensor, axis: AxisUnits) -> Tensor:
    """Everything that belongs to each position of an axis, shape (parts * size, k)."""
    parts, size = axis.units.shape
    if parts == 1:
        return tensor.movedim(axis.axis, 0).reshape(size, -1)
    stretches = tensor.reshape(parts, -1, *tensor.shape[1:])
    return stretches.movedim(axis.axis + 1, 1).reshape(parts * size, -1)


def _side_by_side(slots: Tensor, positions: Ints, owners: Ints, width: int) -> Tensor:
    """Rows (width, most * k): the slots at `positions`, sorted by their `owners`, beside each other."""
    counts = np.bincount(owners, minlength=width)
    chosen = slots[torch.from_numpy(positions)]
    if (counts == 1).all():
        return chosen
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    place = np.arange(owners.size) - first[owners]
    rows = torch.zeros(width, max(int(counts.max()), 1), slots.shape[1])
    rows[torch.from_numpy(owners), torch.from_numpy(place)] = chosen
    return rows.reshape(width, -1)


def score_all(graph: ModelGraph, criterion: Criterion, context: ScoreContext) -> dict[str, Tensor]:
    """Scores (width,) of every free group, float32 on the CPU, higher = keep.

    Raises:
        PluginError: the criterion fails, or gives anything but `width` finite numbers; names criterion and group.
    """
    return {group.name: _scored(criterion, group, context) for group in graph.free_groups}


def _scored(criterion: Criterion, group: CoupledGroup, context: ScoreContext) -> Tensor:
    name = f"criterion `{type(criterion).__name__}` on group {group.name!r}"
    try:
        scores = criterion.score(group, context)
    except NaspruneError:
        raise
    except Exception as error:
        raise PluginError(f"{name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(scores, Tensor) or tuple(scores.shape) != (group.width,):
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise PluginError(f"{name}: expected scores of shape ({group.width},), got {got}")
    scores = scores.detach().to("cpu", torch.float32)
    if not torch.isfinite(scores).all():
        raise PluginError(f"{name}: expected finite scores, got {int((~torch.isfinite(scores)).sum())} that are not")
    return scores
