"""Removable blocks: modules whose output is their input plus branches, so that the identity can stand in for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn
from torch.fx import Node

from nasprune.graph.model import Block, CoupledGroup
from nasprune.graph.program import Program, arguments, module_stack, operator, shape_of

PASSED = frozenset({"view", "reshape", "relu", "relu6", "dropout", "clone", "contiguous", "alias", "hardtanh", "feature_dropout"})


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
        branches = _branches(inside[path])
        if branches and _owns_its_params(path, inside[path], users) and _is_child(model, path):
            owned = tuple(
                group.name for group in groups if all(part.param.startswith(f"{path}.") for part in group.slices)
            )
            names = tuple(node.name for node in inside[path])
            found[path] = Block(path, tuple(node.name for node in branches), names, owned)
    first = {path: nodes[0] for path, nodes in inside.items()}
    order = {node.name: i for i, node in enumerate(program.nodes)}
    return tuple(sorted(found.values(), key=lambda block: order[first[block.name].name]))


def _branches(nodes: Sequence[Node]) -> list[Node]:
    """What is added to the module's only input on the way to its only output; empty where it is no such module."""
    own = set(nodes)
    sources = {
        source for node in nodes for source in node.all_input_nodes if source not in own and not _is_param(source)
    }
    results = [node for node in nodes if any(user not in own for user in node.users)]
    if len(sources) != 1 or len(results) != 1:
        return []
    source, result = sources.pop(), results[0]
    if shape_of(source) is None or shape_of(source) != shape_of(result):
        return []
    return _walk(result, source, own) or []


def _walk(node: Node, source: Node, own: set[Node]) -> list[Node] | None:
    """Branches added between `source` and `node`, or `None` where no plain path leads from one to the other."""
    if node is source:
        return []
    if node not in own:
        return None
    if operator(node) in PASSED:
        return _walk(node.all_input_nodes[0], source, own)
    if operator(node) == "add" and arguments(node).get("alpha", 1) == 1 and len(node.all_input_nodes) == 2:
        for shortcut, branch in (node.all_input_nodes, node.all_input_nodes[::-1]):
            if shape_of(shortcut) != shape_of(node) or branch not in own:
                continue
            rest = _walk(shortcut, source, own)
            if rest is not None:
                return [*rest, branch]
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
