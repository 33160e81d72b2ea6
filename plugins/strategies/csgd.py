"""Centripetal SGD: filters of a cluster move together and towards each other until they are one, and merge exactly.

Ding, Ding, Guo, Han 2019, "Centripetal SGD for pruning very deep convolutional networks with complicated structure",
arXiv:1904.03837. After a step each filter of a cluster has moved by the mean of the cluster's moves, and a share of the
way to the cluster's mean. At the end the filters of a cluster are equal: one stays, and what reads the others adds
their weights to those of the one that stays, so that the cut changes nothing. Departures: this is done after the
optimizer's step, whatever it is, and so to its whole move; clusters are found by k-means on all tensors that make a
channel; parameters and statistics of norms belong to a channel and are merged, too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nasprune import CoupledGroup, InputError, PrunePlan, Strategy, StrategyTask

ROUNDS = 20  # of k-means


class CSGD(Strategy):
    """pull: share of the way to the cluster's mean that a filter goes in a step, in (0, 1]."""

    def __init__(self, task: StrategyTask, pull: float = 0.05) -> None:
        if not 0 < pull <= 1:
            raise InputError(f"`pull` must be in (0, 1], got {pull}")
        self._task, self._pull = task, pull
        counts = task.plan(task.magnitudes()).keep
        self._clusters = {
            group.name: self._found(group, len(counts[group.name])) for group in task.groups if group.name in counts
        }
        self._plan = task.plan({group.name: self._first(group) for group in task.groups})
        self._before = self._values()

    def step(self, progress: float, rate: float) -> None:
        for key, rows in self._values().items():
            group, number = key
            before, clusters = self._before[key], self._clusters[group].to(rows.device)
            moved = before + _mean(rows - before, clusters)
            self._slots(group)[number].write(moved + self._pull * (_mean(before, clusters) - before))
        self._before = self._values()

    def finish(self) -> PrunePlan:
        for group in self._task.groups:
            if group.name not in self._clusters:
                continue
            clusters = self._clusters[group.name]
            kept = torch.zeros(group.width, dtype=torch.bool, device="cpu")
            kept[list(self._plan.keep[group.name])] = True
            for slots in self._task.slots(group):
                rows = slots.read()
                if slots.role == "in":
                    total = _mean(rows, clusters.to(rows.device), total=True)
                    slots.write(total * kept[:, None].to(rows.device))
                else:
                    slots.write(_mean(rows, clusters.to(rows.device)))
        return self._plan

    def _slots(self, name: str) -> list[object]:
        group = next(one for one in self._task.groups if one.name == name)
        return [slots for slots in self._task.slots(group) if slots.role != "in"]

    def _values(self) -> dict[tuple[str, int], Tensor]:
        return {(name, i): slots.read() for name in self._clusters for i, slots in enumerate(self._slots(name))}

    def _first(self, group: CoupledGroup) -> Tensor:
        """High scores for the first filter of every cluster."""
        if group.name not in self._clusters:
            return torch.ones(group.width, device="cpu")
        clusters = self._clusters[group.name].tolist()
        return torch.tensor(
            [float(cluster not in clusters[:unit]) for unit, cluster in enumerate(clusters)], device="cpu"
        )

    def _found(self, group: CoupledGroup, count: int) -> Tensor:
        """The cluster (width,) of every filter; each cell of the group has its share of the `count` clusters."""
        made = [slots.read().float().cpu() for slots in self._task.slots(group) if slots.role == "out"]
        rows = torch.cat(made, 1) if made else torch.zeros(group.width, 1, device="cpu")
        clusters = torch.zeros(group.width, dtype=torch.long, device="cpu")
        cells, start = group.partitions or (tuple(range(group.width)),), 0
        for cell in cells:
            share = count * len(cell) // group.width
            clusters[list(cell)] = _kmeans(rows[list(cell)], share) + start
            start += share
        return clusters


def _kmeans(rows: Tensor, count: int) -> Tensor:
    """The cluster (n,) of every row; none of the `count` is empty. Begins with rows that are far from each other."""
    chosen = [int(rows.norm(dim=1).argmax())]
    nearest = torch.cdist(rows, rows[chosen])[:, 0]
    while len(chosen) < count:
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, torch.cdist(rows, rows[chosen[-1:]])[:, 0])
    centres = rows[chosen].clone()
    clusters = torch.cdist(rows, centres).argmin(1)
    for _ in range(ROUNDS):
        clusters[chosen] = torch.arange(count, device="cpu")  # equal rows would leave some without any
        centres = torch.stack([rows[clusters == number].mean(0) for number in range(count)])
        clusters = torch.cdist(rows, centres).argmin(1)
    clusters[chosen] = torch.arange(count, device="cpu")
    return clusters


def _mean(rows: Tensor, clusters: Tensor, *, total: bool = False) -> Tensor:
    """For every row the mean, or the sum, of its cluster's."""
    sums = torch.zeros(int(clusters.max()) + 1, rows.shape[1], dtype=rows.dtype, device=rows.device)
    sums.index_add_(0, clusters, rows)
    if not total:
        sums /= torch.bincount(clusters).clamp(min=1)[:, None]
    return sums[clusters]
