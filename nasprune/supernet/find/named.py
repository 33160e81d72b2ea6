"""Candidates by the user's word: the children of modules named with `choices=`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from nasprune.supernet.find.adapters import Container
from nasprune.supernet.find.mixture import NotMixedError
from nasprune.supernet.find.probe import Call, Inputs, same_outputs
from nasprune.supernet.find.siblings import LISTS, Siblings, child_path, unlike, wrapped


def named_siblings(
    net: nn.Module,
    inputs: Inputs,
    calls: Mapping[str, list[Call]],
    named: Mapping[str, bool],
    rejected: dict[str, str],
    how: str = "named",
) -> list[Siblings]:
    """The candidates at the named paths, see `find_mixed_ops`; why others have none goes to `rejected`.

    how: they came to be known, in words; "named" is by the user. Call it where the net is `untouched`.
    """
    found = []
    for path, sure in named.items():
        try:
            found.append(_siblings(net, calls, path, how, sure=sure))
        except NotMixedError as error:
            rejected[path] = str(error)
    alone = [(one.path, one.op(next(iter(one.running)))) for one in found if len(one.running) == 1]
    unequal = {path: op for (path, op), same in zip(alone, same_outputs(net, inputs, alone), strict=True) if not same}
    for path, op in unequal.items():
        holder, _, key = op.rpartition(".")
        rejected[path] = (
            f"only one of its candidates runs, and the module does more than to call it; {wrapped(net, holder, key)}"
        )
    return [one for one in found if one.path not in unequal]


def _siblings(net: nn.Module, calls: Mapping[str, list[Call]], path: str, how: str, *, sure: bool) -> Siblings:
    """The candidates at one path.

    Raises:
        NotMixedError: there are none.
    """
    holder = _holder(net, path)
    children = [key for key, _ in net.get_submodule(holder).named_children()]
    made = {key: calls[op] for key in children if (op := child_path(holder, key)) in calls}
    _check_runs(children, made)
    listed = isinstance(net.get_submodule(holder), LISTS)
    keys = tuple(children if listed or len(made) == 1 else _largest_group(made))
    ran = {key: made[key][0] for key in keys if key in made}
    first = next(iter(ran.values()))
    if first.received is None or first.output is None or not all(_same_input(call, first) for call in ran.values()):
        raise NotMixedError("the modules in it do not read the same tensor")
    if len(ran) == 1:
        _check_called(calls.get(path, []), first, wrapped(net, holder, next(iter(ran))))
    kind = f"{type(net.get_submodule(path)).__name__}, {how}"
    known = Container(path, holder, keys, None, "", kind, named=how == "named", sure=sure)
    found = Siblings(path, holder, keys, first.received, first.output, frozenset(ran), listed, known)
    if reason := unlike(net, found, calls):
        raise NotMixedError(reason)
    return found


def _holder(net: nn.Module, path: str) -> str:
    """The module itself, or the one list of candidates in it."""
    module = net.get_submodule(path)
    lists = [key for key, child in module.named_children() if isinstance(child, LISTS) and len(child) > 1]
    return child_path(path, lists[0]) if len(lists) == 1 and not isinstance(module, LISTS) else path


def _check_runs(children: Sequence[str], made: Mapping[str, list[Call]]) -> None:
    if len(children) < 2:
        raise NotMixedError("it holds fewer than two modules")
    if not made:
        raise NotMixedError("none of the modules in it runs on these inputs")
    for key, calls in made.items():
        if len(calls) > 1:
            raise NotMixedError(f"{key!r} runs {len(calls)} times in one forward pass")
        if calls[0].received is None or calls[0].output is None:
            raise NotMixedError(f"{key!r} does not make a tensor of a tensor")


def _largest_group(made: Mapping[str, list[Call]]) -> list[str]:
    """Those that read one tensor, where most do."""
    groups: dict[int, list[str]] = {}
    for key, calls in made.items():
        groups.setdefault(id(calls[0].received), []).append(key)
    largest = max(groups.values(), key=len)
    if len(largest) < 2:
        raise NotMixedError("the modules in it do not read the same tensor")
    return largest


def _same_input(one: Call, other: Call) -> bool:
    if one.received is None or other.received is None:
        return False
    return one.received is other.received or torch.equal(one.received, other.received)


def _check_called(calls: Sequence[Call], candidate: Call, remedy: str) -> None:
    """Where one candidate runs, a trim replaces the module that chooses it, so that must be called, and just for that.

    Args:
        remedy: the code that would help where it is not called.

    Raises:
        NotMixedError: it is not.
    """
    if not calls:
        raise NotMixedError(f"only one of its candidates runs, and it is not called itself; {remedy}")
    if len(calls) > 1:
        raise NotMixedError(f"it runs {len(calls)} times in one forward pass")
    if calls[0].received is not candidate.received:
        raise NotMixedError("only one of its candidates runs, and it does not read what the module reads")
