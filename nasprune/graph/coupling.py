"""From facts about channel ids to units, cells and coupled groups.

Ids that are tied form a unit. Units that touch the same parameter axes, in the same multiplicity and the same parts of
every partition, form a cell. Cells joined by a partition form a group: it keeps the same share of each cell, so that
every partition stays in proportion. All other cells are groups of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nasprune.graph.labels import Channels, Ints, Partition
from nasprune.graph.model import AxisSlice, AxisUnits, CoupledGroup, Role

NONE: Ints = np.zeros(0, dtype=np.int64)
NO_PRODUCER = "no layer of known kind produces these channels"
NO_CONSUMER = "no layer of known kind reads these channels"


@dataclass(frozen=True)
class ParamAxis:
    """One axis of a parameter as the rules left it. ids: (parts, size). order: when the parameter is first used."""

    param: str
    axis: int
    role: Role
    ids: Ints
    order: int


@dataclass(frozen=True)
class Coupled:
    """unit_of: id -> unit, -1 where it belongs to no group. doubts: group name -> operations to try."""

    groups: tuple[CoupledGroup, ...]
    params: Mapping[str, tuple[AxisUnits, ...]]
    unit_of: Ints
    unit_group: Ints
    unit_index: Ints
    doubts: Mapping[str, frozenset[str]]


def components(channels: Channels) -> Ints:
    """For each id the number of its tied set."""
    if not channels.ties:
        return np.arange(channels.size, dtype=np.int64)
    left = np.concatenate([a for a, _ in channels.ties])
    right = np.concatenate([b for _, b in channels.ties])
    graph = coo_array((np.ones(left.size, np.int8), (left, right)), shape=(channels.size, channels.size))
    labels: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def couple(channels: Channels, axes: Sequence[ParamAxis]) -> Coupled:
    """Forms units and groups. Groups come in the order in which the model first produces them."""
    component = components(channels)
    count = int(component.max(initial=-1)) + 1
    reasons = _reasons(channels, axes, component, count)
    signature = _signatures(channels, axes, component, count, reasons)
    first = _first_produced(axes, component, count)
    members = np.flatnonzero(first < np.iinfo(np.int64).max)
    members = members[np.argsort(first[members], kind="stable")]
    bound = [parts for partition in channels.partitions for parts in _bound(partition, component, reasons)]
    group_of, cell_of = _groups_and_cells(bound, component, signature, members)
    return _assemble(channels, axes, component, reasons, bound, members, group_of, cell_of)


def _bound(partition: Partition, component: Ints, reasons: Mapping[int, str]) -> list[tuple[Ints, ...]]:
    """The parts of a partition that must keep the same share: of a loose one those that can lose channels.

    Those that stay whole are a group by themselves, so that a split into many single channels is not as many groups.
    """
    if not partition.loose:
        return [partition.parts]
    stays = np.array(sorted(reasons), dtype=np.int64)
    whole = [bool(np.isin(component[part], stays).all()) for part in partition.parts]
    return [
        tuple(part for part, stay in zip(partition.parts, whole, strict=True) if stay is wanted)
        for wanted in (False, True)
    ]


def _reasons(channels: Channels, axes: Sequence[ParamAxis], component: Ints, count: int) -> dict[int, str]:
    """Why a component is frozen: a fact, or a side without a producer or a consumer."""
    reasons: dict[int, str] = {}
    for ids, reason in channels.frozen:
        for part in np.unique(component[ids]).tolist():
            reasons.setdefault(part, reason)
    for role, reason in (("out", NO_PRODUCER), ("in", NO_CONSUMER)):
        there = np.zeros(count, dtype=bool)
        for axis in axes:
            if axis.role == role:
                there[component[axis.ids]] = True
        for ids in channels.consumed if role == "in" else ():
            there[component[ids]] = True
        for part in np.flatnonzero(~there).tolist():
            reasons.setdefault(part, reason)
    return reasons


def _signatures(
    channels: Channels, axes: Sequence[ParamAxis], component: Ints, count: int, reasons: Mapping[int, str]
) -> Ints:
    """A number per component: equal where it touches the same axes, parts and frozenness equally often."""
    marks = np.random.default_rng(0)
    total = np.zeros(count, dtype=np.uint64)

    def mark(ids: Ints) -> None:
        np.add.at(total, component[ids.reshape(-1)], marks.integers(0, 2**64, dtype=np.uint64))

    for axis in axes:
        mark(axis.ids)
    for partition in channels.partitions:
        for part in partition.parts:
            mark(part)
    frozen = np.zeros(count, dtype=np.uint64)
    frozen[list(reasons)] = marks.integers(0, 2**64, dtype=np.uint64)
    return (total + frozen).view(np.int64)


def _first_produced(axes: Sequence[ParamAxis], component: Ints, count: int) -> Ints:
    """For each component the place where it is first produced; the largest integer where it never is."""
    first = np.full(count, np.iinfo(np.int64).max)
    stride = 1 + max((axis.ids.size for axis in axes), default=0)
    for axis in axes:
        if axis.role == "out":
            ids = component[axis.ids.reshape(-1)]
            np.minimum.at(first, ids, axis.order * stride + np.arange(ids.size))
    return first


def _groups_and_cells(
    bound: Sequence[tuple[Ints, ...]], component: Ints, signature: Ints, members: Ints
) -> tuple[Ints, Ints]:
    """Group and cell number of each member component, both counted from 0 in order of first production.

    bound: parts that must keep the same share, one by one.
    """
    cells = _renumbered(signature[members])
    cell_of = np.full(int(component.max(initial=-1)) + 1, -1)
    cell_of[members] = cells
    left, right = [np.arange(cells.max(initial=-1) + 1)], [np.arange(cells.max(initial=-1) + 1)]
    for parts in bound:
        touched = np.unique(cell_of[component[np.concatenate((*parts, NONE))]])
        touched = touched[touched >= 0]
        left.append(touched[:1].repeat(touched.size))
        right.append(touched)
    edges = np.concatenate(left), np.concatenate(right)
    graph = coo_array((np.ones(edges[0].size, np.int8), edges), shape=(left[0].size, left[0].size))
    linked = connected_components(graph, directed=False)[1]
    return _renumbered(linked[cells]), cells


def _renumbered(values: Ints) -> Ints:
    """Equal values get equal numbers, counted from 0 in order of first appearance."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(first.size, dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(first.size)
    return rank[inverse]


def _assemble(
    channels: Channels,
    axes: Sequence[ParamAxis],
    component: Ints,
    reasons: Mapping[int, str],
    bound: Sequence[tuple[Ints, ...]],
    members: Ints,
    group_of: Ints,
    cell_of: Ints,
) -> Coupled:
    order = np.argsort(group_of, kind="stable")
    members, group_of, cell_of = members[order], group_of[order], cell_of[order]
    starts = np.searchsorted(group_of, np.arange(group_of.max(initial=-1) + 2))
    unit = np.full(int(component.max(initial=-1)) + 2, -1)
    unit[members] = np.arange(members.size)
    unit_of = unit[component]
    unit_index = np.arange(members.size) - starts[group_of]
    slices = _slices(axes, unit_of, group_of, len(starts) - 1)
    incomplete = _incomplete_partitions(bound, unit_of, group_of)
    groups: list[CoupledGroup] = []
    names: set[str] = set()
    for i in range(len(starts) - 1):
        own = range(starts[i], starts[i + 1])
        reason = next((reasons[c] for c in members[own.start : own.stop].tolist() if c in reasons), incomplete.get(i))
        cells = _cells(cell_of[own.start : own.stop])
        width = len(own)
        step = width // reduce(gcd, (len(cell) for cell in cells))
        if reason is None and width == step:
            reason = _indivisible(slices[i], width)
        groups.append(CoupledGroup(_name(slices[i], names), width, slices[i], cells, step, reason))
    params: dict[str, list[AxisUnits]] = {}
    for axis in axes:
        units = unit_of[axis.ids]
        if (units >= 0).any():
            params.setdefault(axis.param, []).append(AxisUnits(axis.axis, units))
    doubts: dict[str, set[str]] = {}
    for ids, node in channels.doubts:
        touched = unit_of[ids]
        for i in np.unique(group_of[touched[touched >= 0]]).tolist():
            doubts.setdefault(groups[i].name, set()).add(node)
    return Coupled(
        tuple(groups),
        {name: tuple(found) for name, found in params.items()},
        unit_of,
        group_of,
        unit_index,
        {name: frozenset(nodes) for name, nodes in doubts.items()},
    )


def _indivisible(slices: tuple[AxisSlice, ...], width: int) -> str:
    """Why nothing smaller than the whole group can stay."""
    if width > 1:
        return f"its {width} parts must stay equal, and each is one unit that cannot be cut further"
    channels = max(part.count for part in slices)
    return f"the code ties its {channels} channels into one unit, so that all stay or none (a shuffle does this)"


def _cells(cell_of: Ints) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(np.flatnonzero(cell_of == cell).tolist()) for cell in dict.fromkeys(cell_of.tolist()))


def _incomplete_partitions(bound: Sequence[tuple[Ints, ...]], unit_of: Ints, group_of: Ints) -> dict[int, str]:
    """Groups that share a partition with channels outside any group: these cannot keep their share."""
    found: dict[int, str] = {}
    for parts in bound:
        units = unit_of[np.concatenate((*parts, NONE))]
        if (units < 0).any():
            found.update(
                dict.fromkeys(np.unique(group_of[units[units >= 0]]).tolist(), "its other part has a fixed size")
            )
    return found


def _slices(axes: Sequence[ParamAxis], unit_of: Ints, group_of: Ints, count: int) -> list[tuple[AxisSlice, ...]]:
    slices: list[list[AxisSlice]] = [[] for _ in range(count)]
    for axis in sorted(axes, key=lambda axis: axis.order):
        units = unit_of[axis.ids.reshape(-1)]
        for i, number in zip(*np.unique(group_of[units[units >= 0]], return_counts=True), strict=True):
            slices[i].append(AxisSlice(axis.param, axis.axis, axis.role, int(number)))
    return [tuple(found) for found in slices]


def _name(slices: tuple[AxisSlice, ...], taken: set[str]) -> str:
    """Path of the first producer's module, made unique."""
    param = next(part.param for part in slices if part.role == "out")
    base = param.partition(".parametrizations.")[0] if ".parametrizations." in param else param.rpartition(".")[0]
    base = base or param
    name, number = base, 2
    while name in taken:
        name, number = f"{base}#{number}", number + 1
    taken.add(name)
    return name
