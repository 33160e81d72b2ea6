"""How channel labels pass one operation: the contract of op rules, and the table that finds the rule for an operator.

A rule that is not sure freezes: an operator without a rule freezes every channel that reaches it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.fx import Node

from nasprune.errors import PluginError
from nasprune.graph.labels import Channels, Factor, Ints, Labels, along, at, without
from nasprune.graph.program import arguments, operator, shape_of, site

Result = Labels | list[Labels]


@dataclass
class ParamUse:
    """What rules learn about one parameter. overrides: axis -> ids (parts, size), for grouped convolutions."""

    roles: dict[int, str]
    overrides: dict[int, Ints]


class OpCall:
    """One operation as a rule sees it: its arguments by schema name, their labels and shapes, and the channel facts."""

    def __init__(
        self,
        node: Node,
        labels: Mapping[str, Result],
        channels: Channels,
        uses: Mapping[str, ParamUse],
        variable: Callable[[Node], bool],
        module: nn.Module | None,
        splits: Mapping[str, int] | None = None,
    ) -> None:
        self.node = node
        self.name = operator(node)
        self.args = arguments(node)
        self.channels = channels
        self.module = module
        self.splits = splits or {}
        self._labels = labels
        self._uses = uses
        self._variable = variable

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.args.get(name, default)

    @property
    def site(self) -> str:
        """The user's line of code."""
        return site(self.node)

    @property
    def where(self) -> str:
        """The operation and the user's line, for reasons."""
        return f"`{self.name}` at {self.site}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        shape = shape_of(self.node)
        if shape is None:
            raise PluginError(f"{self.where} makes no single tensor")
        return shape

    def labels(self, name: str) -> Labels:
        """Labels of a tensor argument, empty where it has none or is absent."""
        return self.labels_of(self.args.get(name))

    def labels_of(self, value: Any) -> Labels:
        found = self._labels.get(value.name, ()) if isinstance(value, Node) else ()
        return () if isinstance(found, list) else found

    def shape_of(self, value: Any) -> tuple[int, ...]:
        found = shape_of(value) if isinstance(value, Node) else None
        return found if found is not None else ()

    def tensors(self) -> list[Node]:
        """All tensor arguments, those in lists included."""
        found: list[Node] = []
        torch.fx.node.map_arg((self.node.args, self.node.kwargs), found.append)
        return found

    def variable(self, value: Any) -> bool:
        """Whether a value depends on the model's input, as weights do not."""
        return isinstance(value, Node) and self._variable(value)

    def owned_by(self, *types: type[nn.Module]) -> bool:
        """Whether the module that ran the operation keeps its sizes where a cut can update them."""
        return isinstance(self.module, types)

    def doubt(self, ids: Ints) -> None:
        """The code may have fixed the number of these channels here: a trial cut has to show."""
        self.channels.doubt(ids, self.node.name)

    def is_parameter(self, value: Any) -> bool:
        """Whether a value is a parameter or buffer itself, and nothing made of one."""
        return isinstance(value, Node) and value.name in self._uses

    def role(self, value: Any, axis: int, role: str) -> None:
        """Says what an axis of a parameter is for: "out", "in" or "scale"."""
        if isinstance(value, Node) and value.name in self._uses:
            self._uses[value.name].roles.setdefault(axis, role)
        elif isinstance(value, Node) and not self.variable(value):
            for source in value.all_input_nodes:
                if len(self.shape_of(source)) == len(self.shape_of(value)) or axis == 0:
                    self.role(source, axis, role)

    def override(self, value: Node, axis: int, ids: Ints) -> bool:
        """Gives one axis of a parameter ids that differ between equal stretches of axis 0, shape (parts, size).

        Returns False where `value` is not a parameter itself.
        """
        if value.name not in self._uses:
            return False
        known = self._uses[value.name].overrides.setdefault(axis, ids)
        if known.shape != ids.shape:
            self.channels.freeze(known, f"{self.where} reads a shared weight in another grouping")
            self.channels.freeze(ids, f"{self.where} reads a shared weight in another grouping")
        elif known is not ids:
            self.channels.tie(known, ids)
        return True

    def give_up(self, reason: str | None = None) -> Labels:
        """Freezes the channels of every argument; the result has none."""
        for node in self.tensors():
            self.channels.freeze_all(self.labels_of(node), reason or f"{self.where} has no rule")
        return ()

    def channel_ids(self, labels: Labels, axis: int, size: int, why: str) -> Ints:
        """One id for each position of `axis`; other factors that end here are frozen. Fresh frozen ids where fixed."""
        factor = at(labels, axis)
        if factor is None:
            ids = self.channels.new(size)
            self.channels.freeze(ids, why)
            return ids
        return self.channels.plain(factor).flat

    def tie_vector(self, name: str, ids: Ints, axis: int = -1) -> None:
        """Ties a per-channel parameter (bias, scale, running mean) to the channels it runs along."""
        value = self.args.get(name)
        if not isinstance(value, Node):
            return
        shape = self.shape_of(value)
        if not shape or shape[axis] != ids.size or ids.size == 1:
            return
        labels = self.labels_of(value)
        factor = at(labels, axis % len(shape))
        if factor is None:
            self.channels.freeze(ids, f"{self.where} adds or scales by a fixed vector")
        else:
            self.channels.tie(self.channels.plain(factor).flat, ids)
            self.role(value, factor.cut, "scale")

    def only(self, labels: Labels, axis: int, ndim: int, ids: Ints) -> Labels:
        """`ids` along `axis`; every other factor of `labels` is frozen."""
        rest = without(labels, at(labels, axis))
        self.channels.freeze_all(rest, f"{self.where} works across these channels")
        return (along(ids, axis, ndim),) if ids.size > 1 else ()


class OpRule(ABC):
    """How labels pass a family of ATen operators.

    targets: operator names without namespace, overload and in-place mark: "conv2d" stands for `aten.conv2d.default`,
    `aten.conv2d.padding` and `aten.conv2d_`.
    """

    targets: ClassVar[tuple[str, ...]]

    @abstractmethod
    def apply(self, call: OpCall) -> Result:
        """The labels of the result, or a list of labels where the operator returns several tensors.

        Must tie, partition or freeze through `call.channels` whatever the operation couples.
        """


class RuleTable:
    """Operator name -> rule. A later rule for the same operator replaces an earlier one."""

    def __init__(self, rules: Iterable[OpRule]) -> None:
        self._rules = {target: rule for rule in rules for target in rule.targets}

    def find(self, name: str) -> OpRule | None:
        return self._rules.get(name)

    def extended(self, rules: Sequence[OpRule]) -> RuleTable:
        table = RuleTable(())
        table._rules = {**self._rules, **{target: rule for rule in rules for target in rule.targets}}
        return table

    def __len__(self) -> int:
        return len(self._rules)


def reduced(call: OpCall, labels: Labels, axes: Iterable[int]) -> list[Factor]:
    """Labels once `axes` have been summed up: factors that end there are consumed, index axes are aligned."""
    axes = set(axes)
    kept = []
    for factor in labels:
        if factor.cut in axes:
            call.channels.consume(factor.ids)
        else:
            kept.append(call.channels.align(factor, axes.intersection(factor.index_axes)))
    return kept


def axes_of(dims: Any, ndim: int) -> list[int]:
    """Dimensions as given to an operator, as a list of axes; `None` and () mean all."""
    if dims is None or dims == []:
        return list(range(ndim))
    return [dim % ndim for dim in (dims if isinstance(dims, list | tuple) else [dims])] if ndim else []
