"""The intermediate representation: operations, channel units, coupled groups, removable blocks.

A *unit* is the smallest thing that can be cut: a set of channel positions, on any number of tensors, that stand or fall
together. Units that touch the same parameter axes form a `CoupledGroup`. All per-unit facts are flat integer arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeVar

import networkx as nx
import numpy as np
import numpy.typing as npt

from nasprune.common.html import code, folded, in_notebook, table, text
from nasprune.common.inputs import Inputs
from nasprune.graph.hints import SizeAttribute, SizeScale
from nasprune.graph.program import Program

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Role = Literal["out", "in", "scale"]
SHOWN = 60
"""How many groups a graph that is printed names."""
Item = TypeVar("Item", "CoupledGroup", "Block")


@dataclass(frozen=True)
class OpNode:
    """One operation of the captured graph. `module` is the path of the module that ran it ("" is the model itself)."""

    name: str
    target: str
    module: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class AxisSlice:
    """One parameter axis that a group owns positions of.

    role: "out" where a convolution or linear layer produces the channels, "in" where one consumes them, "scale" where a
        normalisation, bias, PReLU or per-channel factor runs along them.
    count: how many positions of the axis belong to the group.
    """

    param: str
    axis: int
    role: Role
    count: int


@dataclass(frozen=True)
class CoupledGroup:
    """Channel units that touch the same parameter axes and are cut by one number, the kept count.

    name: path of the first module that produces the channels; unique in the graph.
    width: number of units.
    slices: the parameter axes it touches.
    partitions: unit indices, in cells that must all keep the same share of their units.
    multiple_of: kept counts must be a multiple of it (1 where there is one cell).
    frozen_because: why it may not be cut, or `None`.
    """

    name: str
    width: int
    slices: tuple[AxisSlice, ...]
    partitions: tuple[tuple[int, ...], ...]
    multiple_of: int
    frozen_because: str | None = None

    def __post_init__(self) -> None:
        if self.width < 1 or self.width % self.multiple_of:
            raise ValueError(f"group {self.name!r}: width {self.width} is not a multiple of {self.multiple_of}")

    @property
    def free(self) -> bool:
        return self.frozen_because is None and self.width > self.multiple_of

    @property
    def parts(self) -> str:
        """Where several widths keep the same share, how many and how wide: "4 widths of 8 that shrink alike"."""
        if len(self.partitions) < 2:
            return ""
        widths = sorted({len(part) for part in self.partitions})
        return f"{len(self.partitions)} widths of {' or '.join(map(str, widths))} that shrink alike"


@dataclass(frozen=True)
class Block:
    """A module whose output is added to its own input, so that it can be replaced by the identity.

    name: path of the module. branches: graph values that are zero once the block is gone.
    nodes: operations that vanish with it. groups: groups that live only inside it. relu: whether a ReLU follows the
    last addition, which stays.
    """

    name: str
    branches: tuple[str, ...]
    nodes: tuple[str, ...]
    groups: tuple[str, ...]
    relu: bool = False
    frozen_because: str | None = None

    @property
    def free(self) -> bool:
        return self.frozen_because is None


@dataclass(frozen=True)
class AxisUnits:
    """The units along one axis of a parameter.

    units: shape (parts, size), global unit numbers, -1 where a position belongs to none. parts > 1 for a grouped
    convolution's input axis, where row p applies to the p-th of `parts` equal stretches of axis 0.
    """

    axis: int
    units: Ints

    def positions(self, keep: Bools) -> Bools:
        """Which positions stay, shape (parts, size). keep: shape (units + 1,); the last entry stands for -1."""
        return keep[self.units]


@dataclass(frozen=True)
class ValueUnits:
    """The units along one axis of a tensor. units: broadcasts to the tensor, -1 = none; cut: the axis that shrinks."""

    units: Ints
    cut: int


@dataclass(frozen=True)
class ModelGraph:
    """What `nasprune.trace` returns. Read-only.

    groups, blocks: what can be decided, frozen ones included. skipped: operation, or layer that is not
    registered -> why its channels are frozen.
    params: parameter or buffer name -> units along its axes. values: value of the program -> units on it.
    unit_group, unit_index: shape (units,), the group number of each unit and its index there.
    attributes, scales: numbers that modules hold, or that the code computes, and that follow the size of an axis.
    """

    signature: Mapping[str, tuple[int, ...]]
    groups: tuple[CoupledGroup, ...]
    blocks: tuple[Block, ...]
    skipped: Mapping[str, str]
    ops: tuple[OpNode, ...]
    params: Mapping[str, tuple[AxisUnits, ...]]
    values: Mapping[str, tuple[ValueUnits, ...]] = field(repr=False)
    unit_group: Ints = field(repr=False)
    unit_index: Ints = field(repr=False)
    program: Program = field(repr=False)
    example_inputs: Inputs = field(repr=False)
    scope: str | None = None
    attributes: tuple[SizeAttribute, ...] = field(default=(), repr=False)
    scales: Mapping[str, SizeScale] = field(default_factory=dict, repr=False)
    whole_call: Inputs | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        """A line for each group, and how many blocks can be removed."""
        free = f"{len(self.free_groups)} of {len(self.groups)} groups and {len(self.free_blocks)} of {len(self.blocks)}"
        names = [group.name for group in self.groups]
        wide = max(map(len, names), default=0)
        lines = [f"  {group.name:{wide}}  {group.width:6}  {_said(group)}" for group in self.groups[:SHOWN]]
        more = [f"  ... and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
        return "\n".join([f"ModelGraph: {free} blocks are free", *lines, *more])

    def _repr_html_(self) -> str:
        """For notebooks: a line for each group, and the blocks."""
        groups = [(code(group.name), str(group.width), text(_said(group))) for group in self.groups]
        blocks = [(code(block.name), text(block.frozen_because or "free")) for block in self.blocks]
        free = f"{len(self.free_groups)} of {len(self.groups)} groups and {len(self.free_blocks)} of {len(self.blocks)}"
        parts = [
            f"<p><b>ModelGraph</b>: {free} blocks are free</p>",
            table(("group", "width", ""), groups, numbers=(1,)),
        ]
        return in_notebook([*parts, folded("Blocks", table(("block", ""), blocks))] if blocks else parts)

    @property
    def call(self) -> Inputs:
        """What the whole model is called with; where `scope` names a part, not what that part receives."""
        return self.whole_call or self.example_inputs

    @cached_property
    def nx(self) -> nx.MultiDiGraph:
        """Operations as nodes (attributes target, module, shape), data flow as edges. A fresh, unshared view."""
        graph = nx.MultiDiGraph()
        for op in self.ops:
            graph.add_node(op.name, target=op.target, module=op.module, shape=op.shape)
        for op in self.ops:
            graph.add_edges_from((source, op.name) for source in op.inputs)
        return nx.freeze(graph)

    def group(self, name: str) -> CoupledGroup:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> Mapping[str, CoupledGroup]:
        return {group.name: group for group in self.groups}

    @cached_property
    def group_units(self) -> tuple[Ints, ...]:
        """For each group its global unit numbers, in the order of its indices."""
        order = np.lexsort((self.unit_index, self.unit_group))
        bounds = np.searchsorted(self.unit_group[order], np.arange(len(self.groups) + 1))
        return tuple(order[bounds[i] : bounds[i + 1]] for i in range(len(self.groups)))

    @property
    def free_groups(self) -> tuple[CoupledGroup, ...]:
        return tuple(group for group in self.groups if group.free)

    @property
    def free_blocks(self) -> tuple[Block, ...]:
        return tuple(block for block in self.blocks if block.free)

    def unit_mask(self, keep: Mapping[str, Sequence[int]]) -> Bools:
        """Which units stay, shape (units + 1,), for kept indices by group; the last entry, `True`, stands for -1."""
        mask = np.ones(len(self.unit_group) + 1, dtype=np.bool_)
        index = {group.name: i for i, group in enumerate(self.groups)}
        for name, kept in keep.items():
            units = self.group_units[index[name]]
            mask[units] = False
            mask[units[list(kept)]] = True
        return mask

    def frozen(self, reasons: Mapping[str, str]) -> ModelGraph:
        """The same graph with the named groups and blocks frozen for the given reasons."""
        groups = tuple(_freeze(group, reasons) for group in self.groups)
        blocks = tuple(_freeze(block, reasons) for block in self.blocks)
        return replace(self, groups=groups, blocks=blocks)


def _said(group: CoupledGroup) -> str:
    if group.frozen_because is not None:
        return group.frozen_because
    if not group.free:
        return "free, but all of it stands or falls together"
    return f"free, {group.parts}" if group.parts else "free"


def _freeze(item: Item, reasons: Mapping[str, str]) -> Item:
    if item.name in reasons and item.frozen_because is None:
        return replace(item, frozen_because=reasons[item.name])
    return item
