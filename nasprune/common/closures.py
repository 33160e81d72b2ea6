"""Functions and weak references that hold on to the model that holds them: `copy.deepcopy` leaves them so."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from functools import partial
from types import CellType, FunctionType
from typing import Any

from torch import nn

from nasprune.common.copies import is_empty, is_plain

CONTAINERS = (dict, list, set)
HELD = (FunctionType, partial, weakref.ref)
"""What may hold on to the original."""
REGISTRIES = ("_parameters", "_buffers", "_modules")


def rebind(copied: nn.Module, memo: dict[int, Any]) -> None:
    """Binds attributes and hooks of a copy, such as `lambda x: self.norm(x)`, and weak references to it, in place.

    What else they close over and may write to, such as a dict for features, is copied for them.

    memo: of `copy.deepcopy`, by the identity of the originals.
    """
    rebound = _Rebound(memo)
    for module in copied.modules():
        held = vars(module)
        for name, value in list(held.items()):
            if name in REGISTRIES or is_plain(value) or is_empty(value):
                continue
            if callable(value) or isinstance(value, dict | list | tuple):
                held[name] = rebound.of(value)


class _Rebound:
    def __init__(self, memo: dict[int, Any]) -> None:
        self._memo = memo
        self._done: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        """The value with its functions bound to the copy: functions anew, containers in place."""
        if isinstance(value, weakref.ref):
            return self._pointer(value)
        if isinstance(value, FunctionType):
            return self._function(value) if value.__closure__ or value.__defaults__ else value
        if isinstance(value, partial):
            function = self.of(value.func)
            return value if function is value.func else partial(function, *value.args, **value.keywords)
        if isinstance(value, dict):
            self._each(value, value.items())
        elif isinstance(value, list):
            self._each(value, enumerate(value))
        elif type(value) is tuple and any(isinstance(one, HELD) for one in value):
            return tuple(map(self.of, value))
        return value

    def _each(self, container: Any, items: Any) -> None:
        for key, value in list(items):
            if isinstance(value, HELD):
                container[key] = self.of(value)

    def _pointer(self, value: weakref.ref[Any]) -> weakref.ref[Any]:
        """One to the copy of what the original points to."""
        copied = self._memo.get(id(value()))
        return weakref.ref(copied) if isinstance(copied, nn.Module) else value

    def _function(self, function: FunctionType) -> Callable[..., Any]:
        if id(function) in self._done:
            found: Callable[..., Any] = self._done[id(function)]
            return found
        cells = tuple(CellType() for _ in function.__closure__ or ())
        defaults = tuple(map(self._content, function.__defaults__ or ())) or None
        made = FunctionType(function.__code__, function.__globals__, function.__name__, defaults, cells)
        self._done[id(function)] = made
        made.__kwdefaults__ = function.__kwdefaults__
        made.__dict__.update(function.__dict__)
        for cell, old in zip(cells, function.__closure__ or (), strict=True):
            try:
                cell.cell_contents = self._content(old.cell_contents)
            except ValueError:  # a cell that nothing was put into
                continue
        return made

    def _content(self, value: Any) -> Any:
        """What a copy of a function closes over."""
        if id(value) in self._memo:
            return self._memo[id(value)]
        if isinstance(value, HELD):
            return self.of(value)
        if isinstance(value, nn.Module) or type(value) in CONTAINERS:
            try:
                return copy.deepcopy(value, self._memo)
            except Exception:  # it holds something that nobody can copy, and is left as it is
                return value
        return value
