"""Short digests of what decides a search, so that a run is resumed only with the model, data and code it began with."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import CellType, CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nasprune.data.batches import batches, draw
from nasprune.data.splits import DataSplits, size_of

ITEMS = 8
PASSING = {*vars(nn.Module())} - {"_parameters", "_buffers", "_modules"}
"""Attributes of modules that say nothing of what they compute, such as hooks, whose numbers a process counts up."""


def of_model(model: nn.Module) -> str:
    """16 hexadecimal digits over the names and values of all parameters and persistent buffers."""
    return _digest(
        part
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor)
        for part in (name.encode(), _bytes(value))
    )


def of_data(data: DataSplits) -> str:
    """16 hexadecimal digits over the sizes of the parts and some images and labels of each but the test part.

    Random transforms draw from the global generators; seed these for the same digest.
    """
    return _digest(
        part
        for dataset in (data.train, data.calibration, data.validation)
        for images, labels in batches(dataset, 1, draw(size_of(dataset), ITEMS))
        for part in (str(size_of(dataset)).encode(), _bytes(images), _bytes(labels))
    )


def of_code(*objects: object) -> str:
    """16 hexadecimal digits over the files of classes or functions; what has no file counts by its name."""
    return _digest(_source(found) for found in objects)


def of_made(made: object) -> str:
    """16 hexadecimal digits over the code of an object, or a function, and the values and tensors that it holds.

    What a function holds are its defaults and what it took from around it. Of things of Python's own library what they
    print counts, where that is no address; else only their kind.
    """
    return _digest(_held(made))


def _held(made: object) -> Iterator[bytes]:
    known: dict[int, tuple[int, object]] = {}  # what was come across, and when; a second time only that counts
    waiting = [made]
    while waiting:
        one = waiting.pop()
        yield type(one).__qualname__.encode()
        if isinstance(one, str | bytes | int | float | complex | None):
            yield repr(one).encode()
        elif id(one) in known:
            yield str(known[id(one)][0]).encode()
        else:
            known[id(one)] = len(known), one
            parts = list(_parts(one))
            yield str(len(parts)).encode()
            waiting += reversed(parts)


def _parts(made: Any) -> Iterable[object]:
    """What an object is made of."""
    if isinstance(made, Tensor | np.ndarray):
        return _values(made)
    if isinstance(made, Mapping):
        return [part for item in made.items() for part in item]
    if isinstance(made, list | tuple):
        return made
    if isinstance(made, set | frozenset):
        return sorted(made, key=repr)
    if isinstance(made, partial):
        return made.func, made.args, made.keywords
    if inspect.ismethod(made):
        return made.__func__, made.__self__
    if inspect.isfunction(made):
        around = [_inside(cell) for cell in made.__closure__ or ()]
        return made.__qualname__, _source(made), made.__code__, made.__defaults__, made.__kwdefaults__, around
    if isinstance(made, CodeType):
        return made.co_code, made.co_names, made.co_consts
    if inspect.isroutine(made) or inspect.isclass(made):
        return (_source(made),)
    kind = type(made)
    if kind.__module__.partition(".")[0] in sys.stdlib_module_names or not hasattr(made, "__dict__"):
        printed = repr(made)
        return () if " at 0x" in printed else (printed,)
    return _source(kind), {name: value for name, value in vars(made).items() if name not in PASSING}


def _values(made: Tensor | np.ndarray[Any, Any]) -> tuple[object, ...]:
    try:
        return str(made.dtype), str(tuple(made.shape)), _bytes(torch.as_tensor(made))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # sparse, not there yet, or of objects
        return ()


def _inside(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was put into it
        return None


def _source(found: object) -> bytes:
    try:
        file = inspect.getsourcefile(found)  # type: ignore[arg-type]
        return Path(file).read_bytes() if file else repr(found).encode()
    except (OSError, TypeError):
        return getattr(found, "__qualname__", type(found).__qualname__).encode()


def _bytes(value: Any) -> bytes:
    if isinstance(value, dict):
        return b"".join(key.encode() + _bytes(inner) for key, inner in value.items())
    if isinstance(value, list):
        return b"".join(map(_bytes, value))
    found: bytes = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return found


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
