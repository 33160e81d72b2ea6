"""What a criterion sees: a group's weights gathered as one row per unit; and the scores of all free groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from nasprune.base import ConsumerGram, Criterion, LayerUnits, ScoreContext
from nasprune.calibration.consumers import consumers, layer_units, side_by_side
from nasprune.calibration.statistics import Statistics
from nasprune.common.blame import running
from nasprune.common.phases import Steps, unseen
from nasprune.errors import InputError, PlanError, PluginError
from nasprune.graph.capture import submodule
from nasprune.graph.model import AxisSlice, AxisUnits, CoupledGroup, ModelGraph

Reduction = Literal["sum", "mean", "max"]
Normalisation = Literal["none", "layer", "global"]

_REDUCE: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda stacked: stacked.sum(dim=0),
    "mean": lambda stacked: stacked.mean(dim=0),
    "max": lambda stacked: stacked.amax(dim=0),
}


class WeightContext(ScoreContext):
    """A `ScoreContext` over one model.

    A unit that owns several positions of an axis gets them side by side in its row; rows of units with fewer positions,
    or with none on that tensor, are filled up with zeros.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ModelGraph,
        *,
        seed: int = 0,
        reduce: Reduction = "sum",
        data: Dataset[tuple[Tensor, int]] | None = None,
    ) -> None:
        self._graph = graph
        self._seed = seed
        self._reduce = reduce
        self._number = {group.name: index for index, group in enumerate(graph.groups)}
        self._part = submodule(model, graph.scope)
        self._tensors: dict[str, Tensor] = {
            **dict(self._part.named_buffers(remove_duplicate=False)),
            **dict(self._part.named_parameters(remove_duplicate=False)),
        }
        self._statistics = Statistics(model, graph, data, seed=seed) if data is not None else None

    def rows(self, group: CoupledGroup) -> Iterator[Tensor]:
        return (self._gather(group, part, self._tensors) for part in group.slices if part.role == "out")

    def columns(self, group: CoupledGroup) -> Iterator[Tensor]:
        return (self._gather(group, part, self._tensors) for part in group.slices if part.role == "in")

    def kernels(self, group: CoupledGroup) -> Iterator[Tensor]:
        return (one.weight().transpose(0, 1) for one in consumers(self._part, self._graph, group))

    def scales(self, group: CoupledGroup) -> Iterator[Tensor]:
        return (self._gather(group, part, self._tensors) for part in group.slices if self._is_norm_weight(part))

    def units(self, group: CoupledGroup) -> Tensor:
        return torch.from_numpy(self._graph.group_units[self._number[group.name]].copy())

    def layers(self) -> Sequence[LayerUnits]:
        return layer_units(self._part, self._graph)

    def combine(self, scores: Iterable[Tensor], group: CoupledGroup) -> Tensor:
        stacked = list(scores)
        return _REDUCE[self._reduce](torch.stack(stacked)) if stacked else torch.zeros(group.width, device="cpu")

    def generator(self, group: CoupledGroup) -> Random:
        return Random(f"{self._seed}/{group.name}")

    def activations(self, group: CoupledGroup) -> Iterator[Tensor]:
        return iter(self._measured.activations(group))

    def gradients(self, group: CoupledGroup) -> Iterator[Tensor]:
        return iter(self._measured.gradients(group))

    def fisher(self, group: CoupledGroup) -> Iterator[Tensor]:
        found = self._measured.fisher()
        return (self._gather(group, part, found) for part in group.slices if part.role == "out")

    def grams(self, group: CoupledGroup) -> Iterator[ConsumerGram]:
        return iter(self._measured.grams(group))

    @property
    def _measured(self) -> Statistics:
        if self._statistics is None:
            raise InputError("this criterion needs data, without saying so; it must set `needs_data = True`")
        return self._statistics

    def _is_norm_weight(self, part: AxisSlice) -> bool:
        """A batch norm keeps its weight beside its running statistics, whatever the module's class."""
        owner, _, leaf = part.param.rpartition(".")
        return part.role == "scale" and leaf == "weight" and f"{owner}.running_mean".lstrip(".") in self._tensors

    def _gather(self, group: CoupledGroup, part: AxisSlice, tensors: Mapping[str, Tensor]) -> Tensor:
        """The slots of one parameter axis as rows (width, k); of complex numbers the lengths."""
        if part.param not in tensors:
            raise PlanError(f"the model has no {part.param!r}, which its graph names; trace this very model")
        axis = next(units for units in self._graph.params[part.param] if units.axis == part.axis)
        value = tensors[part.param].detach()
        slots = _slots((value.abs() if value.is_complex() else value).to("cpu", torch.float32), axis)
        units = axis.units.reshape(-1)
        taken = np.flatnonzero(units >= 0)
        taken = taken[self._graph.unit_group[units[taken]] == self._number[group.name]]
        table = torch.from_numpy(side_by_side(taken, self._graph.unit_index[units[taken]], group.width))
        rows = slots[table.clamp(min=0)]
        if (table < 0).any():
            rows[table < 0] = 0
        return rows.reshape(group.width, -1)


def _slots(tensor: Tensor, axis: AxisUnits) -> Tensor:
    """Everything that belongs to each position of an axis, shape (parts * size, k)."""
    parts, size = axis.units.shape
    if parts == 1:
        return tensor.movedim(axis.axis, 0).reshape(size, -1)
    stretches = tensor.reshape(parts, -1, *tensor.shape[1:])
    return stretches.movedim(axis.axis + 1, 1).reshape(parts * size, -1)


@dataclass(frozen=True)
class Scorer:
    """A criterion with its options, ready to score a model.

    name: as the user wrote it. make: a fresh criterion. needs_data: whether scoring takes data.
    reduce: how what several layers say about one unit becomes one score. normalise: how scores of different groups are
    made comparable: "none", "layer" (a group's mean is one) or "global" (the mean of all units of all groups is one).
    """

    name: str
    make: Callable[[], Criterion]
    needs_data: bool = False
    reduce: Reduction = "sum"
    normalise: Normalisation = "none"

    def __post_init__(self) -> None:
        for option, known in (("reduce", Reduction), ("normalise", Normalisation)):
            if getattr(self, option) not in get_args(known):
                raise InputError(
                    f"`{option}` must be one of {', '.join(get_args(known))}, got {getattr(self, option)!r}"
                )

    def check_data(self, given: bool) -> None:
        """Raises InputError where the criterion needs data and none is `given`."""
        if self.needs_data and not given:
            raise InputError(f"the criterion {self.name!r} needs data; give some with `data=` (`--data`)")

    def scores(
        self,
        model: nn.Module,
        graph: ModelGraph,
        *,
        seed: int = 0,
        data: Dataset[tuple[Tensor, int]] | None = None,
        on_step: Steps = unseen,
    ) -> dict[str, Tensor]:
        """Scores (width,) of every free group, float32 on the CPU, higher = keep. The model is left as it is.

        on_step: told how many groups are scored.

        Raises:
            InputError: the criterion needs data. PluginError: as `score_all`.
        """
        self.check_data(data is not None)
        data = data if self.needs_data else None
        context = WeightContext(model, graph, seed=seed, reduce=self.reduce, data=data)
        return normalised(score_all(graph, self.make(), context, on_step), self.normalise)


def normalised(scores: Mapping[str, Tensor], how: Normalisation) -> dict[str, Tensor]:
    """Scores divided by the mean of their group, or of all groups; where that mean is zero they stay as they are."""
    if how == "none" or not scores:
        return dict(scores)
    whole = float(torch.cat(list(scores.values())).double().mean())
    means = {name: float(value.double().mean()) if how == "layer" else whole for name, value in scores.items()}
    return {name: value / means[name] if means[name] else value for name, value in scores.items()}


def score_all(
    graph: ModelGraph, criterion: Criterion, context: ScoreContext, on_step: Steps = unseen
) -> dict[str, Tensor]:
    """Scores (width,) of every free group, float32 on the CPU, higher = keep.

    Raises:
        PluginError: the criterion fails, or gives anything but `width` finite numbers; names criterion and group.
    """
    found: dict[str, Tensor] = {}
    for group in graph.free_groups:
        found[group.name] = _scored(criterion, group, context)
        on_step(len(found), len(graph.free_groups))
    return found


def _scored(criterion: Criterion, group: CoupledGroup, context: ScoreContext) -> Tensor:
    name = f"criterion `{type(criterion).__name__}` on group {group.name!r}"
    with running(criterion, name):
        scores = criterion.score(group, context)
    if not isinstance(scores, Tensor) or tuple(scores.shape) != (group.width,):
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise PluginError(f"{name}: expected scores of shape ({group.width},), got {got}")
    scores = scores.detach().to("cpu", torch.float32)
    if not torch.isfinite(scores).all():
        raise PluginError(f"{name}: expected finite scores, got {int((~torch.isfinite(scores)).sum())} that are not")
    return scores
