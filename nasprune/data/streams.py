"""Streams, which have neither a length nor items by number: what came first, in a file, in constant memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

import torch
from torch import Tensor
from torch.utils.data import Dataset

from nasprune.data.items import read_item
from nasprune.data.opened import Open, opened
from nasprune.errors import InputError

COUNT = 8_192  # items that are taken at most
BYTES = 2 * 2**30  # that these take at most


class Taken(Dataset[tuple[Tensor, Any]]):
    """The first items of a stream; images lie in a temporary file that is mapped into memory.

    Args:
        stream: what gives items, as many as it likes.
        open: what makes a tensor of a PIL image.
        name: of the data, for messages. most: how many are taken.

    Raises:
        InputError: an item cannot be read or is something else, images differ in shape, nothing comes, or the disk is
            full.
    """

    def __init__(self, stream: Iterable[Any], open: Open, name: str, most: int = COUNT) -> None:
        self._folder = Path(mkdtemp(prefix="nasprune-"))
        finalize(self, rmtree, self._folder, ignore_errors=True)
        self.labels: list[Any] = []
        shape, dtype, ended = self._write(_items(stream, open, name), most, name)
        number = len(self.labels)
        total = number * shape.numel()
        flat = torch.from_file(str(self._folder / "images"), shared=False, size=total, dtype=dtype)
        self._images = flat.reshape(number, *shape)
        logging.getLogger(__name__).warning(
            "data %r is a stream: %s the first %s items were taken%s",
            name,
            "all," if ended else "",
            f"{number:,}",
            "" if ended else "; shuffle it beforehand where classes come one after the other",
        )

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self._images[index].clone(), self.labels[index]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def targets(self) -> list[Any]:
        """The label of every item, as torchvision's data sets tell it."""
        return self.labels

    def _write(self, items: Iterator[tuple[Tensor, Any]], most: int, name: str) -> tuple[torch.Size, torch.dtype, bool]:
        first: Tensor | None = None
        try:
            with (self._folder / "images").open("wb") as file:
                for image, label in items:
                    first = image if first is None else first
                    if image.shape != first.shape or image.dtype != first.dtype:
                        raise InputError(
                            f"data {name!r}: item {len(self.labels)} is {_kind(image)}, others are {_kind(first)}; "
                            "give all one shape and type"
                        )
                    file.write(image.contiguous().reshape(-1).view(torch.uint8).numpy().data)
                    self.labels.append(label)
                    if len(self.labels) == min(most, max(1, BYTES // max(1, image.nbytes))):
                        return first.shape, first.dtype, False
        except OSError as error:
            raise InputError(
                f"cannot keep the items of stream {name!r} in {str(self._folder)!r}: {error.strerror or error}; name a "
                "folder with more room by TMPDIR"
            ) from error
        if first is None:
            raise InputError(f"data {name!r}: the stream gives no items; give one that does")
        return first.shape, first.dtype, True


def _items(stream: Iterable[Any], open: Open, name: str) -> Iterator[tuple[Tensor, Any]]:
    source = iter(stream)
    ended = object()
    for number in count():
        item = next(source, ended)
        if item is ended:
            return
        image, label = read_item(partial(opened, item, open, name), number, name)
        yield image.detach().cpu(), label


def _kind(image: Tensor) -> str:
    return f"{tuple(image.shape)} of {str(image.dtype).removeprefix('torch.')}"
