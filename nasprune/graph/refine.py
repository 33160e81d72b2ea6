"""What the exported graph lacks: the real paths of modules, and the sizes that depend on data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from nasprune.graph.program import OBSERVED


def name_real_modules(module: GraphModule, model: nn.Module) -> None:
    """Module paths that the export made up, as "body.slice(1, 3, None).1" for a part of a list, become real ones."""
    known = {path for path, _ in model.named_modules()}
    for node in module.graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        if all(str(path) in known for path, _ in stack.values()):
            continue
        real = {key: (_real_path(str(path), model), kind) for key, (path, kind) in stack.items()}
        node.meta["nn_module_stack"] = {key: (path, kind) for key, (path, kind) in real.items() if path is not None}


def _real_path(path: str, model: nn.Module) -> str | None:
    """The path of the module that the steps of `path` lead to, `None` for a part of a list itself."""
    found: nn.Module = model
    real: list[str] = []
    shift: Sequence[str] | None = None
    for step in _steps(path):
        if step.startswith("slice("):
            bounds = [None if word.strip() == "None" else int(word) for word in step[6:-1].split(",")]
            names = list(found._modules)[slice(*bounds)]
            shift = names if isinstance(found, nn.ModuleList) else None
            continue
        name = shift[int(step)] if shift is not None and step.isdigit() and int(step) < len(shift) else step
        shift = None
        if name not in found._modules or found._modules[name] is None:
            break
        real.append(name)
        found = cast(nn.Module, found._modules[name])
    else:
        return None if _steps(path)[-1:] and _steps(path)[-1].startswith("slice(") else ".".join(real)
    return ".".join(real)


def _steps(path: str) -> list[str]:
    """The names between dots, those in parentheses aside."""
    steps, depth, start = [], 0, 0
    for i, letter in enumerate(path):
        depth += (letter == "(") - (letter == ")")
        if letter == "." and depth == 0:
            steps.append(path[start:i])
            start = i + 1
    return [*steps, path[start:]] if path else []


def observe_sizes(module: GraphModule, leaves: Mapping[str, Any]) -> None:
    """Notes the sizes that depend on data, as one run on `leaves` (placeholder name -> value) has them."""
    if not any(_unknown(node.meta.get("val")) for node in module.graph.nodes):
        return
    values: dict[Node, Any] = {}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for node in module.graph.nodes:
            if node.op == "placeholder":
                value = leaves.get(node.name)
                values[node] = value.clone() if isinstance(value, Tensor) else value
            elif node.op == "call_function":
                args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = cast(Callable[..., Any], node.target)(*args, **kwargs)
                if _unknown(node.meta.get("val")):
                    node.meta[OBSERVED] = _sizes(values[node])


def _unknown(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_unknown(part) for part in value)
    return isinstance(value, Tensor) and any(not isinstance(size, int) for size in value.shape)


def _sizes(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_sizes(part) for part in value]
    return tuple(value.shape) if isinstance(value, Tensor) else None
