"""Removable blocks: modules whose output is their input plus branches, so that the identity can stand in for them.

A ReLU after the last addition stays: relu(x + 0) is not x where x has negative entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn
from torch.fx import Node

from nasprune.graph.model import Block, CoupledGroup
from nasprune.graph.program import Program, arguments, module_stack, operator, shape_of

PASSED = frozenset({"alias", "clone", "contiguous", "dropout", "feature_dropout", "relu", "reshape", "view"})


def find_blocks(program: Program, model: nn.Module, groups: Sequence[CoupledGroup]) -> tuple[Block, ...]:
    """The innermost modules that qualify, in order of execution."""
    inside: dict[str, list[Node]] = {}
    for node in program.nodes:
        if node.op == "call_function":
            for path in dict.fromkeys(module_stack(node)):
                inside.setdefault(path, []).append(node)
    repeated = {path.partition("@")[0] for path in inside if "@" in path}
    users = _param_users(program)
    found: dict[str, Block] = {}
    for path in sorted(inside, key=lambda path: -path.count(".")):
        if path in ("", *repeated) or "@" in path or any(name.startswith(f"{path}.") for name in found):
            continue
        way = _way_through(inside[path])
        if way is not None and way.branches and _owns_its_params(path, inside[path], users) and _is_child(model, path):
            owned = tuple(
                group.name for group in groups if all(part.param.startswith(f"{path}.") for part in group.slices)
            )
            names = tuple(node.name for node in inside[path])
            found[path] = Block(path, tuple(node.name for node in way.branches), names, owned, way.relu)
    first = {path: nodes[0] for path, nodes in inside.items()}
    order = {node.name: i for i, node in enumerate(program.nodes)}
    return tuple(sorted(found.values(), key=lambda block: order[first[block.name].name]))


@dataclass(frozen=True)
class _Way:
    """A path from a module's input to its output: the branches added on it, and whether it passes a ReLU."""

    branches: tuple[Node, ...] = ()
    relu: bool = False


def _way_through(nodes: Sequence[Node]) -> _Way | None:
    """The path from the module's only input to its only output, `None` where it is no such module."""
    own = set(nodes)
    sources = {
        source for node in nodes for source in node.all_input_nodes if source not in own and not _is_param(source)
    }
    results = [node for node in nodes if any(user not in own for user in node.users)]
    if len(sources) != 1 or len(results) != 1:
        return None
    source, result = sources.pop(), results[0]
    if shape_of(source) is None or shape_of(source) != shape_of(result):
        return None
    return _walk(result, source, own)


def _walk(node: Node, source: Node, own: set[Node]) -> _Way | None:
    if node is source:
        return _Way()
    if node not in own:
        return None
    if operator(node) in PASSED:
        way = _walk(node.all_input_nodes[0], source, own)
        return way and replace(way, relu=way.relu or operator(node) == "relu")
    if operator(node) == "add" and arguments(node).get("alpha", 1) == 1 and len(node.all_input_nodes) == 2:
        for shortcut, branch in (node.all_input_nodes, node.all_input_nodes[::-1]):
            if shape_of(shortcut) != shape_of(node) or branch not in own:
                continue
            way = _walk(shortcut, source, own)
            if way is not None:
                return replace(way, branches=(*way.branches, branch))
    return None


def _is_param(node: Node) -> bool:
    return node.op in ("placeholder", "get_attr") and node.name.startswith(("p_", "b_", "c_"))


def _param_users(program: Program) -> Mapping[str, list[Node]]:
    users: dict[str, list[Node]] = {}
    for place, name in program.params.items():
        users.setdefault(name, []).extend(program.by_name[place].users)
    return users


def _owns_its_params(path: str, nodes: Sequence[Node], users: Mapping[str, list[Node]]) -> bool:
    own = set(nodes)
    return all(set(found) <= own for name, found in users.items() if name.startswith(f"{path}."))


def _is_child(model: nn.Module, path: str) -> bool:
    try:
        return isinstance(model.get_submodule(path), nn.Module)
    except AttributeError:
        return False
