"""`copy.deepcopy` of a module, faster: most of what a module holds is known, and needs no look at how it is copied."""

from __future__ import annotations

import copy
import copyreg
from collections import OrderedDict
from typing import Any, TypeVar

from torch import nn

PLAIN = (type(None), bool, int, float, str)
"""Types of what is the same in a copy."""
Module = TypeVar("Module", bound=nn.Module)


def deep_copy(module: Module, memo: dict[int, Any]) -> Module:
    """What `copy.deepcopy(module, memo)` gives. Modules whose class says how it is copied are left to that."""
    return _Copying(memo).module(module)


def is_plain(value: object) -> bool:
    """Whether a value is a number, a string or `None`, or a tuple of these."""
    return type(value) in PLAIN or (type(value) is tuple and all(type(one) in PLAIN for one in value))


def is_empty(value: object) -> bool:
    """Whether a value is one of the empty registries of hooks that every module has."""
    return type(value) is OrderedDict and not value and not vars(value)


class _Copying:
    """memo: the copies by the identity of the originals, as `copy.deepcopy` keeps them."""

    def __init__(self, memo: dict[int, Any]) -> None:
        self._memo = memo
        self._usual: dict[type, bool] = {}

    def module(self, module: Module) -> Module:
        if id(module) in self._memo:
            found: Module = self._memo[id(module)]
            return found
        kind = type(module)
        if kind not in self._usual:
            self._usual[kind] = _is_usual(kind)
        if not self._usual[kind] or "__deepcopy__" in vars(module):
            return copy.deepcopy(module, self._memo)
        made = kind.__new__(kind)
        self._memo[id(module)] = made
        state: dict[str, Any] = module.__getstate__()  # type: ignore[no-untyped-call, unused-ignore]
        made.__setstate__({name: self._value(value) for name, value in state.items()})  # type: ignore[no-untyped-call]
        return made

    def _value(self, value: Any) -> Any:
        if is_plain(value):
            return value
        kind = type(value)
        if kind not in (dict, set, OrderedDict) or id(value) in self._memo:
            return copy.deepcopy(value, self._memo)
        made: Any
        if kind is dict:
            made = self._memo[id(value)] = {}
            for key, one in value.items():
                made[self._inner(key)] = self._inner(one)
        elif is_empty(value):
            made = self._memo[id(value)] = OrderedDict()
        elif kind is set and all(type(one) in PLAIN for one in value):
            made = self._memo[id(value)] = set(value)
        else:
            made = copy.deepcopy(value, self._memo)
        return made

    def _inner(self, value: Any) -> Any:
        if isinstance(value, nn.Module):
            return self.module(value)
        return value if type(value) in PLAIN else copy.deepcopy(value, self._memo)


def _is_usual(kind: type[nn.Module]) -> bool:
    """Whether `copy.deepcopy` would make a new object of that class and copy its attributes one by one."""
    methods = ("__reduce_ex__", "__reduce__", "__getstate__", "__new__", "__getattr__", "__getattribute__")
    return (
        all(getattr(kind, name) is getattr(nn.Module, name) for name in methods)
        and not any(hasattr(kind, name) for name in ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__"))
        and kind not in copyreg.dispatch_table
        and not copyreg._slotnames(kind)  # type: ignore[attr-defined]
    )
