"""The captured program: torch.export's functional ATen graph with the names of the parameters it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

OPERATOR_SUFFIX = "_"
OBSERVED = "observed_sizes"
NO_RESULT = ("_assert_tensor_metadata", "_assert_async")
"""Operators that check something of the run that was captured, and give nothing."""
TORCH = f"{Path(torch.__file__).parent}/"
LAYERS = ("linear", *(f"conv{kind}{axes}d" for kind in ("", "_transpose") for axes in (1, 2, 3)))
"""Operators of layers: they multiply what they read with a weight."""


@dataclass(frozen=True, eq=False)
class Program:
    """A traced model. Holds no parameter values of its own: they are read from a model when it is run.

    params: placeholder name -> parameter or buffer name, the first one of a tied tensor.
    constants: placeholder name -> tensor that the code made.
    inputs: placeholder names of the leaves of the arguments, in order. keywords: names of the keyword arguments in the
    order in which `inputs` has them. buffers: those names in `params` that are buffers.
    """

    module: GraphModule
    params: Mapping[str, str]
    constants: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    buffers: frozenset[str] = frozenset()
    keywords: tuple[str, ...] = ()

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(self.module.graph.nodes)

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def outputs(self) -> tuple[Node, ...]:
        """Nodes whose tensors the model returns, in flat order; other leaves are left out."""
        found: list[Node] = []
        torch.fx.node.map_arg(self.nodes[-1].args, found.append)
        return tuple(found)

    @cached_property
    def live(self) -> tuple[Node, ...]:
        """Nodes that a result needs, in order; a jit trace, and so fvcore, drops the others.

        A change in place is needed where it changes an input, a parameter or a buffer, or what a needed node reads.
        """
        owners = self._owners
        needed: set[Node] = set()
        read = {owner for node in self.nodes if node.op == "placeholder" for owner in owners[node]}
        for node in reversed(self.nodes):
            if node.op == "output" or node in needed or any(not owners[n].isdisjoint(read) for n in _changed(node)):
                needed.add(node)
                for source in node.all_input_nodes:
                    needed.add(source)
                    read |= owners[source]
        return tuple(node for node in self.nodes if node in needed)

    @cached_property
    def _owners(self) -> Mapping[Node, frozenset[Node]]:
        """For each node the nodes that made the memory its tensors lie in: itself, or those that it is a view of."""
        found: dict[Node, frozenset[Node]] = {}
        for node in self.nodes:
            viewed = _viewed(node)
            found[node] = frozenset[Node]().union(*map(found.__getitem__, viewed)) if viewed else frozenset({node})
        return found

    def weight_of(self, node: Node) -> str | None:
        """The name of the parameter that a layer's operation multiplies with, where it is one as it is."""
        weight = arguments(node).get("weight") if operator(node) in LAYERS else None
        return self.params.get(weight.name) if isinstance(weight, Node) else None

    @cached_property
    def waits_for(self) -> Mapping[Node, frozenset[Node]]:
        """For each live node those that have to run before it: what it reads, and changes in place that it must see.

        So must what reads the memory run before the node that changes it.
        """
        changed: dict[Node, Node] = {}
        readers: dict[Node, list[Node]] = {}
        found: dict[Node, frozenset[Node]] = {}
        for node in self.live:
            touched = {owner for source in node.all_input_nodes for owner in self._owners[source]}
            waits = {*node.all_input_nodes, *(changed[owner] for owner in touched if owner in changed)}
            for owner in {owner for source in _changed(node) for owner in self._owners[source]}:
                waits.update(readers.pop(owner, ()))
                changed[owner] = node
            for owner in touched:
                readers.setdefault(owner, []).append(node)
            found[node] = frozenset(waits)
        return found

    @cached_property
    def multiplying(self) -> Mapping[str, tuple[Node, ...]]:
        """Parameter -> the live operations of layers that multiply with it as it is."""
        found: dict[str, tuple[Node, ...]] = {}
        for node in self.live:
            if (name := self.weight_of(node)) is not None:
                found[name] = (*found.get(name, ()), node)
        return found

    @cached_property
    def unread(self) -> tuple[str, ...]:
        """Parameters that nothing in the program reads, in order."""
        read = {self.params[node.name] for node in self.live if node.name in self.params}
        return tuple(name for name in dict.fromkeys(self.params.values()) if name not in read | self.buffers)

    def owner(self, node: Node) -> str:
        """Path of the innermost module that ran `node`; "" is the model itself."""
        return module_stack(node)[-1] if module_stack(node) else ""


def _changed(node: Node) -> list[Node]:
    """The nodes whose tensors `node` changes in place."""
    if not isinstance(node.target, torch._ops.OpOverload) or _stores(node):
        return []
    found: list[Node] = []
    given = arguments(node)
    for argument in node.target._schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            torch.fx.node.map_arg(given[argument.name], found.append)
    return found


def _viewed(node: Node) -> list[Node]:
    """The nodes whose memory the tensors of `node` may lie in."""
    if operator(node) == "getitem":
        return list(node.all_input_nodes)
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    found: list[Node] = []
    given = arguments(node)
    if any(result.alias_info is not None for result in node.target._schema.returns):
        for argument in node.target._schema.arguments:
            if argument.alias_info is not None:
                torch.fx.node.map_arg(given[argument.name], found.append)
    return found


def _stores(node: Node) -> bool:
    """Whether torch.export added `node` for a buffer that the code assigned: it bears the mark of what was assigned."""
    if operator(node) != "copy" or len(node.all_input_nodes) != 2:
        return False
    target, source = node.all_input_nodes
    return target.op == "placeholder" and node.meta.get("torch_fn") == source.meta.get("torch_fn")


def operator(node: Node) -> str:
    """Short operator name: "conv2d" for `aten.conv2d.default`, "relu" for `aten.relu_.default`, "getitem"."""
    target = node.target
    name = (
        target.__name__.split(".")[0] if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", "")
    )
    return str(name).rstrip(OPERATOR_SUFFIX) or str(target)


def arguments(node: Node) -> dict[str, Any]:
    """All arguments of an ATen call by their schema names, defaults included."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return {str(i): value for i, value in enumerate(node.args)}
    bound: dict[str, Any] = {}
    for i, argument in enumerate(node.target._schema.arguments):
        if i < len(node.args):
            bound[argument.name] = node.args[i]
        else:
            bound[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return bound


def shape_of(node: Node) -> tuple[int, ...] | None:
    """Shape of the tensor a node makes, `None` for lists and scalars; that on the example where it depends on data."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    return tuple(node.meta[OBSERVED]) if OBSERVED in node.meta else tuple(int(size) for size in value.shape)


def shapes_of(node: Node) -> list[tuple[int, ...]]:
    """Shapes of the tensors a node makes, in order."""
    value = node.meta.get("val")
    if not isinstance(value, list | tuple):
        shape = shape_of(node)
        return [] if shape is None else [shape]
    known = node.meta.get(OBSERVED, [getattr(part, "shape", None) for part in value])
    return [tuple(int(size) for size in shape) for shape in known if shape is not None]


def depends_on_data(node: Node) -> bool:
    """Whether a size of the node's result is known only when it runs."""
    return OBSERVED in node.meta


def module_stack(node: Node) -> list[str]:
    """Paths of the modules that were running, outermost first; a second call of a module ends in "@1"."""
    stack = node.meta.get("nn_module_stack", {})
    return [call_path(key, path) for key, (path, _) in stack.items()]


def call_path(key: str, path: str) -> str:
    call = key.rpartition("@")[2] if "@" in key else ""
    return f"{path}@{call}" if call else str(path)


def site(node: Node) -> str:
    """File name and line of the code outside torch that ran `node`, or the node's name where it is not known."""
    trace = str(node.meta.get("stack_trace") or "")
    lines = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    if not lines:
        return node.name
    users = [line for line in lines if not line.startswith(f'File "{TORCH}')]
    file, _, rest = (users or lines)[-1].removeprefix('File "').partition('", line ')
    return f"{file.rsplit('/', 1)[-1]}:{rest.split(',')[0]}"


def code(node: Node) -> str:
    """The lines of code outside torch that ran `node`, as text."""
    lines = str(node.meta.get("stack_trace") or "").splitlines()
    return "\n".join(text.strip() for file, text in pairwise(lines) if _is_users(file.strip()))


def _is_users(line: str) -> bool:
    return line.startswith("File ") and not line.startswith(f'File "{TORCH}')


def signature(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters and persistent buffers."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items() if isinstance(value, Tensor)}
