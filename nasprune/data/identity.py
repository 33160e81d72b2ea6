"""Short digests of what decides a search, so that a run is resumed only with the model, data and code it began with."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import CellType
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.data.batches import batches, draw
from nasprune.data.splits import DataSplits, size_of

ITEMS = 8


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
    """16 hexadecimal digits over the code of an object, or a function, and the plain values and tensors that it holds.

    What a function holds are its defaults and what it took from around it. Of other things only the kind counts.
    """
    return _digest(_held(made, []))


def _held(made: object, above: list[object]) -> Iterator[bytes]:
    yield type(made).__qualname__.encode()
    if isinstance(made, str | bytes | int | float | complex | bool | None):
        yield repr(made).encode()
    elif isinstance(made, Tensor):
        yield _bytes(made)
    elif any(one is made for one in above):
        return
    elif isinstance(made, Mapping):
        for key, value in made.items():
            yield repr(key).encode()
            yield from _held(value, [*above, made])
    elif isinstance(made, list | tuple | set | frozenset):
        for value in sorted(made, key=repr) if isinstance(made, set | frozenset) else made:
            yield from _held(value, [*above, made])
    elif isinstance(made, partial):
        yield from _held([made.func, made.args, made.keywords], [*above, made])
    elif inspect.ismethod(made):
        yield from _held([made.__func__, made.__self__], [*above, made])
    elif inspect.isfunction(made):
        cells = [_inside(cell) for cell in made.__closure__ or ()]
        yield made.__qualname__.encode() + _source(made)
        yield from _held([made.__defaults__, made.__kwdefaults__, cells], [*above, made])
    elif not inspect.ismodule(made):
        yield _source(made if inspect.isroutine(made) or inspect.isclass(made) else type(made))
        own = {} if inspect.isclass(made) else getattr(made, "__dict__", {})
        yield from _held({name: value for name, value in own.items() if name != "training"}, [*above, made])


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
