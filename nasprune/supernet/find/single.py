"""Modules of which a forward pass runs one at a time: drawn at random, so that passes differ, or one that is set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from nasprune.supernet.find.probe import Call, Inputs, observe
from nasprune.supernet.find.siblings import LISTS, Siblings, child_path, structure_of, unlike, wrapped

PASSES = 4
"""How many more forward passes tell whether a net draws which module runs."""


def drawn_holders(net: nn.Module, inputs: Inputs, calls: Mapping[str, list[Call]]) -> list[str]:
    """What to name for all modules that draw which one of their children runs.

    In some pass another child ran than in the first; or that was so in a module of the same class with as many
    children, since few passes may draw the same one every time.
    """
    passes = [frozenset(calls), *(frozenset(observe(net, inputs, seed)[0]) for seed in range(1, PASSES + 1))]
    ran: dict[str, list[str]] = {}
    for holder, parent in net.named_modules():
        keys = [key for key, _ in parent.named_children()]
        picked = [[key for key in keys if child_path(holder, key) in one] for one in passes]
        if len(keys) > 1 and all(len(some) == 1 for some in picked):
            ran[holder] = [some[0] for some in picked]
    kinds = {holder: (_kind(net, holder), len(net.get_submodule(holder)._modules)) for holder in ran}
    varying = {kinds[holder] for holder, keys in ran.items() if len(set(keys)) > 1}
    return [_to_name(net, holder, calls, keys[0]) or holder for holder, keys in ran.items() if kinds[holder] in varying]


def one_that_runs(
    net: nn.Module, holder: str, calls: Mapping[str, list[Call]], keys: Sequence[str], ran: Mapping[str, list[Call]]
) -> tuple[str, str]:
    """What to do if the children of a module are candidates of which one runs; "" where they cannot be.

    Children of what is no list count if they are all that the module calls, on what it reads. Call it where the net is
    `untouched`.

    Returns:
        what is seen, and the module that is to be named; "" where the code must change first, as is then said.
    """
    if len(ran) != 1 or len(keys) < 2:
        return "", ""
    key, (call, *again) = next(iter(ran.items()))
    if again or call.received is None or call.output is None:
        return "", ""
    name = _to_name(net, holder, calls, key)
    listed = isinstance(net.get_submodule(holder), LISTS)
    if not listed and name != holder:
        return "", ""
    found = Siblings(holder, holder, tuple(keys), call.received, call.output, frozenset(ran), listed)
    structures = [structure_of(net.get_submodule(found.op(each))) for each in keys]
    if all(other == structures[0] for other in structures) or unlike(net, found, calls):
        return "", ""
    reason = f"of its {len(keys)} modules only {key!r} runs; if they are candidates"
    return (reason, name) if name else (f"{reason}, {wrapped(net, holder, key)}", "")


def _to_name(net: nn.Module, holder: str, calls: Mapping[str, list[Call]], key: str) -> str:
    """The module that runs just what `key` of `holder` reads: the holder, or that which holds the list; "" is none."""
    path = holder.rpartition(".")[0] if isinstance(net.get_submodule(holder), LISTS) else holder
    called = calls.get(path, []) if path else []
    return path if len(called) == 1 and called[0].received is calls[child_path(holder, key)][0].received else ""


def _kind(net: nn.Module, holder: str) -> type[nn.Module]:
    """The class of the module, or of the nearest around it that is no mere list."""
    while holder and isinstance(net.get_submodule(holder), LISTS):
        holder = holder.rpartition(".")[0]
    return type(net.get_submodule(holder))
