"""Modules that a net holds under several paths."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nasprune.common.copies import deep_copy
from nasprune.supernet.find.mixed import MixedOp

MOST_NAMED = 20
"""Paths that a message names."""


@contextmanager
def unshared(net: nn.Module) -> Iterator[None]:
    """Inside, what stands at a further path of a module is a copy, which shares its parameters and buffers.

    So hooks see at which path a module runs. Afterwards the net is as it was.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    _unshare(net, {id(net)}, replaced)
    try:
        yield
    finally:
        for owner, name, module in replaced:
            owner._modules[name] = module


def _unshare(owner: nn.Module, seen: set[int], replaced: list[tuple[nn.Module, str, nn.Module]]) -> None:
    if isinstance(owner, torch.jit.ScriptModule):
        return
    for name, child in list(owner._modules.items()):
        if child is None:
            continue
        if id(child) not in seen:
            seen.add(id(child))
            _unshare(child, seen, replaced)
            continue
        twin = _twin(child)
        if twin is not None:
            owner._modules[name] = twin
            replaced.append((owner, name, child))


def _twin(module: nn.Module) -> nn.Module | None:
    """A copy with the same parameters and buffers; `None` where there can be none."""
    try:
        shared: dict[int, Any] = {id(value): value for value in (*module.parameters(), *module.buffers())}
        return deep_copy(module, shared)
    except Exception:  # a module's own code may raise anything
        return None


def shared_ops(net: nn.Module, mixed: Sequence[MixedOp], ran: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Path of a candidate -> other paths of the same module, where this is more than another name for it.

    It is more where the module runs there, is a candidate there too, or only one candidate of its own place runs.

    Args:
        ran: paths at which modules run, as seen where the net is `unshared`.
    """
    used = {op for one in mixed for op in one.ops}.union(ran)
    paths = _paths(net)
    found = {}
    for one in mixed:
        for op in one.ops:
            others = [path for path in paths[id(net.get_submodule(op))] if path != op]
            counted = tuple(path for path in others if one.single_path or path in used)
            if counted:
                found[op] = counted
    return found


def separated(net: nn.Module, op: str, others: Sequence[str]) -> str:
    """The code that gives each of the other paths of a module one of its own.

    What is copied is the outermost module that two paths share, so that the copies are no longer in one place.
    """
    paths = tuple(dict.fromkeys(_outermost(net, op, other) for other in others))
    listed = ", ".join(repr(path) for path in paths[:MOST_NAMED]) + (", ..." if len(paths) > MOST_NAMED else ",")
    return f"for path in ({listed}): net.set_submodule(path, copy.deepcopy(net.get_submodule(path)))"


def _outermost(net: nn.Module, op: str, other: str) -> str:
    while True:
        up, around = op.rpartition(".")[0], other.rpartition(".")[0]
        if not up or not around or up == around or net.get_submodule(up) is not net.get_submodule(around):
            return other
        op, other = up, around


def follow(small: nn.Module, net: nn.Module, mixed: Sequence[MixedOp]) -> None:
    """Puts what `small`, a copy of `net`, has now in the place of a candidate at all further paths of it too."""
    paths = _paths(net)
    for op in (op for one in mixed if not one.single_path for op in one.ops):
        for other in paths[id(net.get_submodule(op))]:
            parent, _, name = other.rpartition(".")
            if other != op:
                small.get_submodule(parent)._modules[name] = small.get_submodule(op)


def _paths(net: nn.Module) -> Mapping[int, list[str]]:
    found: dict[int, list[str]] = {}
    for path, module in net.named_modules(remove_duplicate=False):
        found.setdefault(id(module), []).append(path)
    return found
