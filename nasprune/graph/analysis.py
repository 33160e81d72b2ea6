"""From a model to its graph of operations, channel groups and removable blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from torch import nn
from torch.fx import Node

from nasprune.common.inputs import ExampleInputs, Inputs
from nasprune.errors import PluginError
from nasprune.graph.blocks import find_blocks
from nasprune.graph.capture import capture, scoped_inputs, submodule
from nasprune.graph.coupling import Coupled, ParamAxis, couple
from nasprune.graph.hints import AxisOf, Hints, SizeAttribute, SizeScale
from nasprune.graph.labels import Channels, Labels, along, at
from nasprune.graph.model import Ints, ModelGraph, OpNode, Role, ValueUnits
from nasprune.graph.ops import builtin_rules, rule_for
from nasprune.graph.outside import unregistered
from nasprune.graph.program import Program, depends_on_data, module_stack, operator, shape_of, signature
from nasprune.graph.rules import OpCall, OpRule, ParamUse, Result, RuleTable


@dataclass(frozen=True)
class Analysis:
    """What the captured program says. doubts: group -> operations that may insist on its size.

    hints: the readings of the user's code that this analysis follows.
    """

    graph: ModelGraph
    doubts: Mapping[str, frozenset[str]]
    hints: Hints
    captured: Captured

    def again(self, hints: Hints) -> Analysis:
        """The same program read with other hints."""
        return _read(self.captured, hints)


@dataclass(frozen=True)
class Captured:
    """A program, and all that reading it takes."""

    program: Program
    part: nn.Module
    inputs: Inputs
    scope: str | None
    rules: RuleTable


def analyse(model: nn.Module, example_inputs: ExampleInputs, scope: str | None, rules: Sequence[OpRule]) -> Analysis:
    """Captures the model, or the part that `scope` names, and finds its groups and blocks; arguments as `trace`."""
    inputs = Inputs.of(example_inputs, model)
    part = submodule(model, scope)
    if scope is not None:
        inputs = scoped_inputs(model, inputs, scope)
    return _read(Captured(capture(part, inputs), part, inputs, scope, builtin_rules().extended(rules)), Hints())


def _read(captured: Captured, hints: Hints) -> Analysis:
    program, part = captured.program, captured.part
    walk = _Walk(program, part, captured.rules, hints)
    coupled = couple(walk.channels, walk.param_axes())
    values = _values(program, walk.labels, coupled)
    graph = ModelGraph(
        signature=signature(part),
        groups=coupled.groups,
        blocks=find_blocks(program, part, coupled.groups),
        skipped=walk.skipped | unregistered(part, program.constants),
        ops=_op_nodes(program),
        params=coupled.params,
        values=values,
        unit_group=coupled.unit_group,
        unit_index=coupled.unit_index,
        program=program,
        example_inputs=captured.inputs.ordered(program.keywords),
        scope=captured.scope,
        attributes=tuple(
            SizeAttribute(units, hint.module, hint.place)
            for hint in hints.attributes
            if (units := units_along(values, hint.size)) is not None
        ),
        scales={
            hint.node: SizeScale(units, hint.power)
            for hint in hints.scales
            if (units := units_along(values, hint.size)) is not None
        },
    )
    return Analysis(graph, coupled.doubts, hints, captured)


def units_along(values: Mapping[str, tuple[ValueUnits, ...]], size: AxisOf) -> Ints | None:
    """The units along an axis, shape (rows, size); `None` where it has none. values: see `ModelGraph`."""
    factor = next((factor for factor in values.get(size.node, ()) if factor.cut == size.axis), None)
    if factor is None:
        return None
    return np.moveaxis(factor.units, factor.cut, -1).reshape(-1, factor.units.shape[factor.cut])


class _Walk:
    """One pass over the program in execution order."""

    def __init__(self, program: Program, model: nn.Module, rules: RuleTable, hints: Hints) -> None:
        self.channels = Channels()
        self.labels: dict[str, Result] = {}
        self.skipped: dict[str, str] = {}
        self._program = program
        self._splits = hints.splits
        self._modules = dict(model.named_modules())
        by_param = {name: ParamUse({}, {}) for name in program.params.values()}
        self._uses = {place: by_param[name] for place, name in program.params.items()}
        self._param_labels: dict[str, Labels] = {}
        self._order: dict[str, int] = {}
        self._fixed: set[str] = set()
        for index, node in enumerate(program.nodes):
            if node.op == "placeholder":
                self.labels[node.name] = self._leaf(node)
            elif node.op == "output":
                for result in program.outputs:
                    self.channels.freeze_all(self._flat(result.name), "the model returns these channels")
            elif node.op == "call_function":
                self._call(node, index, rules)
        for link in hints.links:
            factors = [at(self._flat(one.node), one.axis) for one in link]
            parts = [factor.flat for factor in factors if factor is not None]
            if len(parts) > 1:
                self.channels.partition(parts)

    def _leaf(self, node: Node) -> Labels:
        """Parameters and constants get ids along every axis, tied parameters the same; the model's inputs none."""
        if node.name in self._program.inputs:
            return ()
        self._fixed.add(node.name)
        shape, name = shape_of(node) or (), self._program.params.get(node.name, node.name)
        if name not in self._param_labels:
            self._param_labels[name] = tuple(
                along(self.channels.new(n), axis, len(shape)) for axis, n in enumerate(shape) if n > 1
            )
        return self._param_labels[name]

    def _call(self, node: Node, index: int, rules: RuleTable) -> None:
        for source in node.all_input_nodes:
            self._order.setdefault(self._program.params.get(source.name, source.name), index)
        if all(source.name in self._fixed for source in node.all_input_nodes):
            self._fixed.add(node.name)
        if operator(node) == "getitem":
            found = self.labels[cast(Node, node.args[0]).name]
            self.labels[node.name] = found[cast(int, node.args[1])] if isinstance(found, list) and found else ()
            return
        owner = self._program.owner(node).partition("@")[0]
        call = OpCall(
            node,
            self.labels,
            self.channels,
            self._uses,
            lambda n: n.name not in self._fixed,
            self._modules.get(owner),
            self._splits,
        )
        if depends_on_data(node):
            self.labels[node.name] = call.give_up(f"the size of what {call.where} gives depends on the data")
            return
        rule = rule_for(node, rules)
        if rule is None:
            self.labels[node.name] = call.give_up()
            if any(call.labels_of(source) for source in call.tensors()):
                self.skipped.setdefault(call.name, f"no rule for operator {node.target}, first met at {call.site}")
            return
        self.labels[node.name] = _checked(rule.apply(call), rule, node)

    def _flat(self, name: str) -> Labels:
        found = self.labels.get(name, ())
        return tuple(factor for part in found for factor in part) if isinstance(found, list) else found

    def param_axes(self) -> list[ParamAxis]:
        """All labelled parameter axes, grouped convolutions' input axes by part."""
        axes = []
        for name, use in {name: self._uses[place] for place, name in self._program.params.items()}.items():
            for factor in self._param_labels[name]:
                ids = use.overrides.get(factor.cut, factor.ids.reshape(1, -1))
                role = cast(Role, use.roles.get(factor.cut, "scale"))
                axes.append(ParamAxis(name, factor.cut, role, ids, self._order.get(name, len(self._order))))
        return axes


def _checked(result: Result, rule: OpRule, node: Node) -> Result:
    """The labels a rule gave, if they fit the tensor."""
    shape = shape_of(node)
    if isinstance(result, list) or shape is None:
        return result
    for factor in result:
        sizes = factor.ids.shape
        fits = len(sizes) == len(shape) and all(size in (1, n) for size, n in zip(sizes, shape, strict=True))
        if not fits or sizes[factor.cut] != shape[factor.cut]:
            raise PluginError(
                f"op rule `{type(rule).__name__}` gave ids of shape {list(sizes)}, cut at axis {factor.cut}, for the "
                f"result {list(shape)} of {operator(node)}; ids must broadcast to it and span the axis they cut"
            )
    return result


def _values(program: Program, labels: Mapping[str, Result], coupled: Coupled) -> dict[str, tuple[ValueUnits, ...]]:
    values = {}
    for name, found in labels.items():
        if isinstance(found, list):
            continue
        units = tuple(ValueUnits(coupled.unit_of[factor.ids], factor.cut) for factor in found)
        values[name] = tuple(factor for factor in units if (factor.units >= 0).any())
    return values


def _op_nodes(program: Program) -> tuple[OpNode, ...]:
    return tuple(
        OpNode(
            node.name,
            str(node.target),
            (module_stack(node) or [""])[-1].partition("@")[0],
            tuple(source.name for source in node.all_input_nodes),
            shape_of(node),
        )
        for node in program.nodes
        if node.op != "output"
    )
