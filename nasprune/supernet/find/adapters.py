"""Choices that frameworks declare by a class, known by the class's name: none of them is imported."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Container:
    """Declared candidates.

    path: what `MixedOp.path` will be. keys: of the candidates below `holder`. names: "" where nothing says what they
    are called. label: what ties them to others. kind: the framework's class, in words.
    named: whether the user named it. sure: whether it counts even where no weights of a mixture can be measured.
    """

    path: str
    holder: str
    keys: tuple[str, ...]
    names: tuple[str, ...] | None
    label: str
    kind: str
    named: bool = False
    sure: bool = True


def known_containers(net: nn.Module) -> list[Container]:
    """What classes known by name declare, in order of registration."""
    found = []
    for path, module in net.named_modules():
        lineage = [cls.__name__ for cls in type(module).__mro__]
        reader = next((READERS[name] for name in lineage if name in READERS), None)
        found += reader(path, module) if reader else []
    return [container for container in found if len(container.keys) >= 2]


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _layer_choice(path: str, module: Any) -> list[Container]:
    """NNI's LayerChoice and what it is mutated into: candidates are children among others, listed in `names`."""
    given = getattr(module, "names", None)
    if not isinstance(given, list | tuple) or not hasattr(module, "label"):
        return []  # another class of that name
    names = [str(name) for name in given]
    told = None if all(isinstance(name, int) for name in given) else tuple(names)
    return [Container(path, path, tuple(names), told, str(module.label), f"{type(module).__name__} (NNI)")]


def _mixed_cell(path: str, module: Any) -> list[Container]:
    """NNI's cell with a ModuleDict on every edge from node j to node i, the cell's inputs counted first."""
    found = []
    for node, edges in enumerate(module.ops, start=int(module.num_predecessors)):
        for source, edge in enumerate(edges):
            place = _joined(path, "ops", str(node - int(module.num_predecessors)), str(source))
            keys = tuple(edge.keys())
            label = f"{module.label}/{node}_{source}"
            found.append(Container(place, place, keys, keys, label, f"{type(module).__name__} (NNI)"))
    return found


def _mutable_op(path: str, module: Any) -> list[Container]:
    """MMRazor's mutable operation: candidates in `_candidates`."""
    candidates = getattr(module, "_candidates", None)
    if not isinstance(candidates, nn.ModuleDict | nn.ModuleList):
        return []
    keys = tuple(name for name, _ in candidates.named_children())
    told = tuple(str(choice) for choice in getattr(module, "choices", ()))
    if len(told) != len(keys):
        told = keys
    names = None if isinstance(candidates, nn.ModuleList) and all(name.isdigit() for name in told) else told
    label = str(getattr(module, "alias", None) or "")
    return [Container(path, _joined(path, "_candidates"), keys, names, label, f"{type(module).__name__} (MMRazor)")]


def _mixed_op(path: str, module: Any) -> list[Container]:
    """The mixed operation of DARTS and its kin: candidates in a list named `_ops` or `m_ops`."""
    for name in ("_ops", "m_ops"):
        candidates = getattr(module, name, None)
        if isinstance(candidates, nn.ModuleList):
            place = _joined(path, name)
            keys = tuple(key for key, _ in candidates.named_children())
            return [Container(place, place, keys, None, "", f"{type(module).__name__}.{name}")]
    return []


READERS: dict[str, Callable[[str, Any], list[Container]]] = {
    "LayerChoice": _layer_choice,
    "DifferentiableMixedCell": _mixed_cell,
    "DiffMutableOP": _mutable_op,
    "OneShotMutableOP": _mutable_op,
    "MixedOp": _mixed_op,
}
"""The name of a class, or of one that it derives from -> what its instances declare."""


def candidate_names(keys: Sequence[str], modules: Sequence[nn.Module]) -> tuple[str, ...]:
    """Distinct names: the keys, or where these only count up (0, 1, … or op1, op2, …) the classes."""
    counted = [re.fullmatch(r"(.*?)(\d+)", key) for key in keys]
    numbers = [int(match[2]) for match in counted if match]
    prefixes = {match[1] for match in counted if match}
    start = min(numbers, default=0)
    if len(numbers) < len(keys) or len(prefixes) > 1 or numbers != list(range(start, start + len(keys))):
        return tuple(keys)
    names: list[str] = []
    for module in modules:
        name = _class_name(module)
        seen = sum(other.partition(".")[0] == name for other in names)
        names.append(f"{name}.{seen + 1}" if seen else name)
    return tuple(names)


def _class_name(module: nn.Module) -> str:
    """Its class; for a plain Sequential that of the first inside that is no activation."""
    if type(module) is not nn.Sequential:
        return type(module).__name__
    inside = [each for each in module if type(each).__module__ != nn.ReLU.__module__]
    return _class_name(inside[0]) if inside else "Sequential"
