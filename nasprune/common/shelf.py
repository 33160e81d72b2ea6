"""Tensors put aside: in memory up to a limit, the others in files of a temporary folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import gettempdir, mkdtemp
from types import TracebackType
from weakref import finalize

import numpy as np
import torch
from torch import Tensor

from nasprune.errors import InputError

MUCH = 2  # how many times larger than a view its memory may be, to be kept whole


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in one of the memories that were written."""

    memory: int
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    device: torch.device


@dataclass(frozen=True)
class _Written:
    file: Path
    lengths: tuple[int, ...]
    places: tuple[_Place, ...]


class Shelf:
    """Lists of tensors by key. Tensors of one list that share memory still share it when they come back.

    Args:
        limit: bytes that are held in memory; what comes when these are taken goes to files.

    Raises:
        InputError: a file cannot be written.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._folder: Path | None = None
        self._kept: dict[Hashable, list[Tensor]] = {}
        self._written: dict[Hashable, _Written] = {}
        self._count = 0
        self._free: list[Path] = []  # files that are written over, which is faster than to begin new ones

    def __enter__(self) -> Shelf:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forgets everything and removes the files."""
        self._kept.clear()
        self._written.clear()
        self._free.clear()
        self._held = 0
        if self._folder is not None:
            rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def put(self, key: Hashable, tensors: Sequence[Tensor]) -> None:
        """Keeps the tensors under a key that is free."""
        tensors = _compact(tensors)
        size = _bytes(tensors)
        if self._held + size <= self._limit:
            self._held += size
            self._kept[key] = tensors
        else:
            self._written[key] = self._write(tensors)

    def read(self, key: Hashable) -> list[Tensor]:
        """The tensors under the key, which stay there."""
        return self._kept[key] if key in self._kept else _read(self._written[key])

    def take(self, key: Hashable) -> list[Tensor]:
        """The tensors under the key, which is free again."""
        if key in self._kept:
            tensors = self._kept.pop(key)
            self._held -= _bytes(tensors)
            return tensors
        written = self._written.pop(key)
        tensors = _read(written)
        self._free.append(written.file)
        return tensors

    def _write(self, tensors: Sequence[Tensor]) -> _Written:
        memories = _memories(tensors)
        order = {address: number for number, address in enumerate(memories)}
        try:
            file = self._free.pop() if self._free else self._new_file()
            with file.open("r+b") as out:
                for tensor in memories.values():
                    _whole(tensor).cpu().numpy().tofile(out)
        except OSError as error:
            where, why = str(self._folder or gettempdir()), error.strerror or error
            raise InputError(
                f"cannot put activations aside in {where!r}: {why}; name a folder with more room by TMPDIR, or allow "
                "more memory with `memory=` (--memory)"
            ) from error
        places = tuple(
            _Place(order[_address(t)], t.dtype, tuple(t.shape), t.stride(), int(t.storage_offset()), t.device)
            for t in tensors
        )
        return _Written(file, tuple(t.untyped_storage().nbytes() for t in memories.values()), places)

    def _new_file(self) -> Path:
        if self._folder is None:
            self._folder = Path(mkdtemp(prefix="nasprune-"))
            finalize(self, rmtree, self._folder, ignore_errors=True)  # of a shelf that nobody closes
        file = self._folder / str(self._count)
        self._count += 1
        file.touch()
        return file


def _read(written: _Written) -> list[Tensor]:
    with written.file.open("rb") as source:
        memories = [torch.from_numpy(np.fromfile(source, np.uint8, length)) for length in written.lengths]
    found: list[Tensor] = []
    for place in written.places:
        memory = memories[place.memory] = memories[place.memory].to(place.device)
        own = torch.empty(0, dtype=place.dtype, device=place.device)
        found.append(own.set_(memory.untyped_storage(), place.offset, place.size, place.stride))
    return found


def _compact(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Plain numbers; a copy of what alone reads a small part of its memory."""
    plain = [tensor.detach().resolve_conj().resolve_neg() for tensor in tensors]
    readers = Counter(map(_address, plain))
    return [tensor.clone() if readers[_address(tensor)] == 1 and _is_small_part(tensor) else tensor for tensor in plain]


def _is_small_part(tensor: Tensor) -> bool:
    return MUCH * tensor.numel() * tensor.element_size() < tensor.untyped_storage().nbytes()


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _memories(tensors: Sequence[Tensor]) -> dict[int, Tensor]:
    """One tensor of each memory."""
    found: dict[int, Tensor] = {}
    for tensor in tensors:
        found.setdefault(_address(tensor), tensor)
    return found


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in _memories(tensors).values())


def _whole(tensor: Tensor) -> Tensor:
    """All bytes of the tensor's memory, uint8."""
    memory = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(memory, 0, (memory.nbytes(),), (1,))
