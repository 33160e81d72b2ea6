"""A captured program as the source of a class that needs torch alone, and the tensors that it holds.

Layers of torch stand for the operations that they run; what else a layer of the user's own did stands in `forward` as
operations, one a line, in the order in which they ran.
"""

from __future__ import annotations

import itertools
import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.fx import Node
from torch.utils._pytree import tree_unflatten

from nasprune.common.words import visible
from nasprune.deploy.expressions import argument, expression, is_check
from nasprune.deploy.layers import Layer, layer_of
from nasprune.errors import InputError
from nasprune.graph.capture import inline_regions

RESERVED = frozenset(dir(nn.Module())) | {"torch", "nn", "functional", "operator", "math", "self", "load", "read"}


@dataclass(frozen=True)
class Source:
    """The lines of a class `Net`, indented. tensors: by their names in its state. inputs: of `forward`."""

    made: tuple[str, ...]
    forward: tuple[str, ...]
    inputs: tuple[str, ...]
    tensors: dict[str, Tensor]


def source_of(program: ExportedProgram) -> Source:
    """The source of the program.

    Raises:
        InputError: it runs what has no form in plain Python, or changes its own buffers.
    """
    inline_regions(program.graph_module)
    return _Writer(program).written()


@dataclass
class _Writer:
    program: ExportedProgram
    _made: list[str] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)  # value -> its variable, or what stands for it
    _attributes: dict[tuple[Any, ...], str] = field(default_factory=dict)
    _tensors: dict[str, Tensor] = field(default_factory=dict)

    def written(self) -> Source:
        leaves, inputs = self._placeholders()
        nodes = [node for node in self.program.graph.nodes if node.op not in ("placeholder", "output")]
        live = [node for node in nodes if not is_check(node)]
        uses = _last_uses(self.program)
        free = _Variables(inputs)
        forward, module = [], ""
        for node in live:
            if node.op == "get_attr":
                self._constant(node)
                continue
            text = self._expression(node, leaves)
            owner = _owner(node)
            if owner != module:
                forward.append(f"# {visible(owner) or 'the network itself'}")
                module = owner
            dying = [self._names.get(value.name, "") for value in node.all_input_nodes if uses.get(value) is node]
            name = free.next(dying, number=not isinstance(node.meta.get("val"), Tensor | list | tuple))
            self._names[node.name] = name
            if text != name:
                forward.append(f"{name} = {text}")
            if not node.users:
                free.release(name)
        forward.append(f"return {self._outputs()}")
        return Source(tuple(self._made), tuple(forward), tuple(inputs), self._tensors)

    def _placeholders(self) -> tuple[dict[str, tuple[str, Tensor]], list[str]]:
        """The tensors that the network holds, by placeholder, and the names of its inputs."""
        leaves: dict[str, tuple[str, Tensor]] = {}
        inputs: list[str] = []
        for spec in self.program.graph_signature.input_specs:
            name = str(getattr(spec.arg, "name", ""))
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
                held = self.program.state_dict if spec.target in self.program.state_dict else self.program.constants
                leaves[name] = str(spec.target), held[str(spec.target)].detach()
            elif spec.kind is InputKind.USER_INPUT and isinstance(spec.arg, ConstantArgument):
                self._names[name] = repr(spec.arg.value)
            elif spec.kind is InputKind.USER_INPUT:
                self._names[name] = _identifier(name, set(inputs))
                inputs.append(self._names[name])
            else:
                raise InputError("the network holds objects that are no tensors; take the format pt2 or onnx")
        return leaves, inputs

    def _expression(self, node: Node, leaves: dict[str, tuple[str, Tensor]]) -> str:
        layer = layer_of(node, leaves)
        if layer is not None and layer.input.name in self._names:
            return f"self.{self._layer(node, layer)}({self._names[layer.input.name]})"
        for value in node.all_input_nodes:
            if value.name in leaves and value.name not in self._names:
                self._names[value.name] = f"self.{self._tensor(*leaves[value.name])}"
        return expression(node, lambda value: self._names[value.name])

    def _layer(self, node: Node, layer: Layer) -> str:
        """The attribute that holds the layer, made at its first use."""
        path, _ = next(iter(layer.tensors.values()))
        own = path.rpartition(".")[0] or node.name
        key = (layer.made, *((name, place) for name, (place, _) in layer.tensors.items()))
        if key not in self._attributes:
            name = _identifier(own, set(self._attributes.values()))
            self._attributes[key] = name
            self._made.append(f"self.{name} = {layer.made}")
            self._tensors.update({f"{name}.{inner}": value for inner, (_, value) in layer.tensors.items()})
        return self._attributes[key]

    def _tensor(self, path: str, value: Tensor) -> str:
        """The attribute that holds a tensor of the network that is in none of torch's layers."""
        key = ("tensor", path)
        if key not in self._attributes:
            name = _identifier(path, set(self._attributes.values()))
            self._attributes[key] = name
            empty = f"torch.zeros({tuple(value.shape)!r}, dtype={value.dtype})"
            trained = isinstance(self.program.state_dict.get(path), nn.Parameter)
            made = f"self.{name} = nn.Parameter({empty})" if trained else f"self.register_buffer({name!r}, {empty})"
            self._made.append(made)
            self._tensors[name] = value
        return self._attributes[key]

    def _constant(self, node: Node) -> None:
        value = getattr(self.program.graph_module, str(node.target), None)
        if not isinstance(value, Tensor):
            raise InputError("the network runs programs of its own inside; take the format pt2 or onnx")
        self._names[node.name] = f"self.{self._tensor(str(node.target), value.detach())}"

    def _outputs(self) -> str:
        specs = self.program.graph_signature.output_specs
        if any(spec.kind is not OutputKind.USER_OUTPUT for spec in specs):
            raise InputError("the network changes its own buffers while it runs; take the format pt2")
        given = next(node for node in self.program.graph.nodes if node.op == "output").args[0]
        texts = [_Text(argument(value, lambda node: self._names[node.name])) for value in given]
        try:
            return _structure(tree_unflatten(texts, self.program.call_spec.out_spec))
        except TypeError:  # a class of the user's
            return f"({', '.join(text.text for text in texts)},)"


@dataclass(frozen=True)
class _Text:
    text: str


class _Variables:
    """Names of variables; one whose value is read for the last time is taken over by what was made from it."""

    def __init__(self, inputs: list[str]) -> None:
        self._held = dict.fromkeys(inputs, False)  # name -> whether it holds a number, and no tensor
        self._first = inputs[0] if len(inputs) == 1 and len(inputs[0]) == 1 else "x"

    def next(self, dying: list[str], *, number: bool = False) -> str:
        """The variable of a new value. dying: those that nothing reads later. number: whether it is no tensor."""
        kept = next((name for name in dying if self._held.get(name) is number), None)
        for name in dying:
            if name != kept:
                self.release(name)
        if kept is not None:
            return kept
        stem = "n" if number else self._first
        name = next(name for name in self._numbered(stem) if name not in self._held)
        self._held[name] = number
        return name

    def release(self, name: str) -> None:
        self._held.pop(name, None)

    def _numbered(self, stem: str) -> Iterator[str]:
        yield stem
        for number in itertools.count(1):
            yield f"{stem}{number}"


def _last_uses(program: ExportedProgram) -> dict[Node, Node]:
    """Value -> the last node that reads it."""
    last: dict[Node, Node] = {}
    for node in program.graph.nodes:
        if not is_check(node):
            for value in node.all_input_nodes:
                last[value] = node
    return last


def _owner(node: Node) -> str:
    """The path of the module whose code ran the operation, without that of a layer of torch."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    own = [path for path, kind in stack if not str(kind).startswith("torch.nn.modules.") or "container" in str(kind)]
    return re.sub(r"@\d+$", "", str(own[-1])) if own else ""


def _identifier(path: str, taken: set[str]) -> str:
    """A name for an attribute or a variable, made of a path."""
    name = re.sub(r"\W", "_", path).strip("_") or "value"
    name = f"_{name}" if name[0].isdigit() else name
    name = f"{name}_" if keyword.iskeyword(name) or name in RESERVED else name
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def _structure(value: Any) -> str:
    """What the network gives, in the containers that it gives it in."""
    if isinstance(value, _Text):
        return value.text
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_structure(part)}" for key, part in value.items()) + "}"
    if type(value) in (list, tuple):
        inner = ", ".join(map(_structure, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    if value is None:
        return "None"
    raise TypeError(type(value).__name__)
