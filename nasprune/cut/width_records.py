"""Widths that modules record for whoever builds on them: `num_features`, `out_channels`, timm's `feature_info`.

No run reads them, so no cut fails for them; a new head of the recorded width does. A name says which axis is meant: of
what enters a module, of what leaves it, or of what reaches its head. Where exactly one axis there is as long as the
number says, `build` keeps the two alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from nasprune.cost.sizes import Extent, Sizes
from nasprune.cut.attributes import configured, is_size, listed
from nasprune.cut.compare import run
from nasprune.cut.plan import PrunePlan
from nasprune.cut.surgery import draft
from nasprune.cut.trial_plans import half_plan
from nasprune.cut.tried import bisect
from nasprune.graph.analysis import units_along
from nasprune.graph.capture import submodule
from nasprune.graph.hints import AxisOf, Place, SizeAttribute
from nasprune.graph.model import ModelGraph
from nasprune.graph.program import module_stack

ENTERING = frozenset(
    {"groups", "in_channels", "in_channels_list", "in_features", "in_dim", "input_dim", "in_chs", "in_planes"}
)
LEAVING = frozenset({"out_channels", "_out_channels", "out_features", "out_dim", "output_dim", "out_chs", "out_planes"})
REACHING_THE_HEAD = frozenset({"num_features", "head_hidden_size", "feature_dim", "num_ftrs", "embed_dim", "pool_dim"})
CONFIGURED = ("hidden", "dim", "channels", "intermediate", "width")
FEATURES, WIDTH = "feature_info", "num_chs"


@dataclass(frozen=True)
class _Record:
    """A number that a module holds. of: the path of the module that it is about. last: of several features."""

    module: str
    place: Place
    value: int
    of: str
    last: bool = False

    @property
    def name(self) -> str:
        return WIDTH if self.place[-1] == WIDTH else str(self.place[0])

    def __str__(self) -> str:
        steps = "".join(f"[{step!r}]" if isinstance(step, int) or step == WIDTH else f".{step}" for step in self.place)
        return f"{self.module}{steps}".lstrip(".")


def with_records(model: nn.Module, graph: ModelGraph) -> ModelGraph:
    """The graph with the recorded widths of `model` that follow a cut beyond doubt.

    A trial cut shows that setting them changes no output; those that do change one are left as they are.
    """
    part = submodule(model, graph.scope)
    taken = {(one.module, one.place) for one in graph.attributes}
    axes = _Axes(graph)
    found = {
        str(record): SizeAttribute(units, record.module, record.place)
        for record in _records(part)
        if (record.module, record.place) not in taken
        if (axis := axes.meant(record)) is not None
        if (units := units_along(graph.values, axis)) is not None
    }
    if not found:
        return graph
    names = [group.name for group in graph.free_groups]
    expected = _outputs(model, graph, names)

    def reason(chosen: Sequence[str]) -> str:
        got = _outputs(model, _more(graph, [found[name] for name in chosen]), names)
        alike = expected is not None and got is not None and all(map(torch.equal, expected, got))
        return "" if alike else "the code reads it"

    read = bisect(list(found), reason)
    return _more(graph, [one for name, one in found.items() if name not in read])


def stale(model: nn.Module, graph: ModelGraph, plan: PrunePlan) -> tuple[str, ...]:
    """Recorded widths, those of a configuration too, that equal a width which the plan cuts and do not follow it."""
    part = submodule(model, graph.scope)
    followed = {(one.module, one.place) for one in graph.attributes}
    shorter = _shorter(graph, plan)
    return tuple(
        dict.fromkeys(
            f"`{record}` = {record.value}"
            for record in (*_records(part), *_configured(part))
            if record.value in shorter and (record.module, record.place) not in followed
        )
    )


def _shorter(graph: ModelGraph, plan: PrunePlan) -> set[int]:
    """Sizes of axes that lose channels."""
    keep = graph.unit_mask(plan.keep)
    axes = (factor for factors in graph.values.values() for factor in factors)
    return {axis.units.shape[axis.cut] for axis in axes if not keep[axis.units].all()}


def _more(graph: ModelGraph, attributes: Iterable[SizeAttribute]) -> ModelGraph:
    return replace(graph, attributes=(*graph.attributes, *attributes))


def _outputs(model: nn.Module, graph: ModelGraph, names: Sequence[str]) -> list[torch.Tensor] | None:
    """What a trial cut gives; `None` where it does not run."""
    try:
        small = draft(model, graph, half_plan(graph, names))
        return run(submodule(small, graph.scope), graph.example_inputs)
    except Exception:  # the user's code may fail in any way, once its numbers change
        return None


def _records(part: nn.Module) -> Iterator[_Record]:
    for path, module in part.named_modules():
        if type(module).__module__.startswith("torch.nn."):
            continue  # those are set by their weights
        for name, value in vars(module).items():
            if name in ENTERING | LEAVING | REACHING_THE_HEAD:
                yield from (_Record(path, (name, *place), size, path) for place, size in listed(value))
            elif name == FEATURES:
                yield from _features(path, value)


def _features(path: str, value: Any) -> Iterator[_Record]:
    """timm's: a list of dicts, or an object that has one as `info`; each names a module and the width it gives."""
    inner: Place = () if isinstance(value, list | tuple) else ("info",)
    entries = getattr(value, "info", value)
    entries = entries if isinstance(entries, list | tuple) else ()
    for number, entry in enumerate(entries):
        if isinstance(entry, dict) and is_size(entry.get(WIDTH)) and isinstance(entry.get("module"), str):
            of = f"{path}.{entry['module']}".lstrip(".")
            last = number == len(entries) - 1
            yield _Record(path, (FEATURES, *inner, number, WIDTH), entry[WIDTH], of, last)


def _configured(part: nn.Module) -> Iterator[_Record]:
    """Numbers of a configuration that the model carries along, which may describe what was cut."""
    for place, size in configured(part):
        if any(word in str(place[1]) for word in CONFIGURED):
            yield _Record("", place, size, "")


class _Axes:
    """Channel axes of what enters a module, of what leaves it, and of what its last layers read."""

    def __init__(self, graph: ModelGraph) -> None:
        self._graph = graph
        self._sizes = Sizes(graph)
        self._inside = {
            node: frozenset(path.partition("@")[0] for path in module_stack(node)) | {""}
            for node in graph.program.nodes
            if node.op == "call_function"
        }

    def meant(self, record: _Record) -> AxisOf | None:
        """The axis that a record is the length of; `None` where that is in doubt, or it is not one that is cut."""
        if record.name in REACHING_THE_HEAD:
            return self._nearest(record)
        values = self._entering(record.of) if record.name in ENTERING else self._leaving(record.of)
        found = {extent: axis for axis, extent in self._channels(values) if extent.dense == record.value}
        if not found and record.last:  # its module computes nothing: it stands for what the head reads
            return self._nearest(replace(record, of=record.module))
        return next(iter(found.values())) if len(found) == 1 else None

    def _nearest(self, record: _Record) -> AxisOf | None:
        """Where the last layer of a module reads as many channels."""
        params = self._graph.program.params
        read = [
            node.all_input_nodes[0]
            for node, modules in reversed(self._inside.items())
            if record.of in modules and any(source.name in params for source in node.all_input_nodes)
        ]
        return next((axis for axis, extent in self._channels(read) if extent.dense == record.value), None)

    def _entering(self, path: str) -> Iterator[Node]:
        for node, modules in self._inside.items():
            if path in modules:
                yield from (one for one in node.all_input_nodes if path not in self._inside.get(one, frozenset()))

    def _leaving(self, path: str) -> Iterator[Node]:
        for node, modules in self._inside.items():
            if path in modules and any(path not in self._inside.get(user, frozenset()) for user in node.users):
                yield node

    def _channels(self, values: Iterable[Node]) -> Iterator[tuple[AxisOf, Extent]]:
        groups = self._graph.groups
        for value in values:
            if value.name in self._graph.program.params:
                continue
            for axis, extent in enumerate(self._sizes.of(value)):
                if isinstance(extent, Extent) and any(groups[number].free for number, _ in extent.terms):
                    yield AxisOf(value.name, axis), extent
