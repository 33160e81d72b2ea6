"""What traces and fvcore found in a net is kept for tests that bring an equal net: it is most of what they cost.

All else is done each time. Nets are equal where all that they hold is: classes, attributes, values, modes.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import types
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from nasprune.common.inputs import Inputs

LARGE = 60_000_000
"""Bytes of a net of which nothing is kept: to read it takes longer than to look at it."""
T = TypeVar("T")


class Kept(Generic[T]):
    """A function of a net, its inputs and more, which gives for equal ones what it gave before, or a copy of that."""

    def __init__(self, function: Callable[..., T], copied: Callable[[T], T] = lambda found: found):
        self._function = function
        self._copied = copied
        self._found: dict[bytes, tuple[T, list[Any]]] = {}

    def __call__(self, model: nn.Module, inputs: Inputs, *more: Any) -> T:
        key, named = content((model, inputs.args, dict(inputs.kwargs), *more))
        if key is None:
            return self._function(model, inputs, *more)
        if key not in self._found:
            self._found[key] = self._function(model, inputs, *more), named
        return self._copied(self._found[key][0])


def content(value: object) -> tuple[bytes | None, list[Any]]:
    """A digest of all that `value` holds, and the code that it names, whose identity is part of that.

    `None` where it holds what cannot be written down: code made inside functions, generators, locks; or is large.
    """
    written = io.BytesIO()
    pickler = _Digest(written)
    try:
        pickler.dump(value)
    except Exception:  # whatever an attribute raises that is not meant to be pickled
        return None, []
    return (hashlib.sha256(written.getvalue()).digest() if written.tell() < LARGE else None), pickler.named


class _Digest(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.named: list[Any] = []
        self._memory: dict[int, int] = {}

    def reducer_override(self, value: Any) -> Any:
        if value is _told:
            return NotImplemented
        if isinstance(value, types.FunctionType):
            if value.__closure__:
                raise pickle.PicklingError("what its code reads may change")
            return self._code(value)
        if isinstance(value, type):
            return self._code(value)
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.grad_fn is not None:
                raise pickle.PicklingError("more than its numbers")
            memory = self._memory.setdefault(value.untyped_storage().data_ptr(), len(self._memory))
            place = memory, value.storage_offset(), tuple(value.stride()), tuple(value.shape), str(value.dtype)
            numbers = value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            return _told, (id(type(value)), place, value.requires_grad, numbers, vars(value))
        return NotImplemented

    def _code(self, value: Any) -> Any:
        self.named.append(value)  # what lives has an identity of its own
        return _told, (id(value),)


def _told(*parts: object) -> None:
    """Stands in the digest for what is named by its parts."""
