"""One weight as streams of bytes, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nasprune.codec.gaps import gaps_of, positions_of
from nasprune.codec.huffman import Bytes, Ints, decode, encode, lengths_of
from nasprune.codec.sharing import shared

STREAMS = ("codes", "gaps")


@dataclass(frozen=True)
class Stream:
    """Whole numbers as Huffman words. lengths: bits of each number's word. only: the number, where there is but one."""

    packed: Bytes
    lengths: Bytes
    only: int

    @classmethod
    def of(cls, values: Ints, symbols: int) -> Stream:
        """values: all below `symbols`."""
        lengths = lengths_of(np.bincount(values, minlength=symbols))
        return cls(encode(values, lengths), lengths, int(values[0]) if len(values) else 0)

    def values(self, count: int) -> Ints:
        """Raises ValueError where the bytes are not those of so many numbers."""
        if not 0 <= self.only < max(1, len(self.lengths)):
            raise ValueError("the number that stands alone is none of the numbers")
        return decode(self.packed, self.lengths, count, self.only)


@dataclass(frozen=True)
class Layer:
    """A weight. book: the shared values (k,), float32; number k stands for a filler. entries: values and fillers."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    book: Tensor
    codes: Stream
    gaps: Stream
    entries: int
    nonzeros: int

    @property
    def numel(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def fillers(self) -> int:
        return self.entries - self.nonzeros

    @property
    def bytes(self) -> int:
        """Of streams, tables and shared values."""
        tables = sum(len(stream.packed) + len(stream.lengths) for stream in (self.codes, self.gaps))
        return tables + 4 * len(self.book)


def encoded(weight: Tensor, bits: int, gap_bits: int) -> Layer:
    """A finite weight with at most 2^bits shared values, and gaps of `gap_bits` bits."""
    flat = weight.detach().cpu().double().reshape(-1).numpy()
    positions = np.flatnonzero(flat)
    centres, numbers = shared(flat[positions], bits)
    gaps, owners = gaps_of(positions, gap_bits)
    filled = np.append(numbers, len(centres))[owners]  # -1 takes the last
    return Layer(
        tuple(weight.shape),
        weight.dtype,
        torch.from_numpy(centres.astype(np.float32)),
        Stream.of(filled, len(centres) + 1),
        Stream.of(gaps, 1 << gap_bits),
        len(gaps),
        len(positions),
    )


def decoded(layer: Layer) -> Tensor:
    """The weight with its shared values.

    Raises:
        ValueError: the streams are damaged.
    """
    codes, positions = layer.codes.values(layer.entries), positions_of(layer.gaps.values(layer.entries))
    if len(layer.codes.lengths) != len(layer.book) + 1:
        raise ValueError("there are not as many words as shared values")
    if layer.entries and int(positions[-1]) >= layer.numel:
        raise ValueError("a position lies outside of the weight")
    if int((codes < len(layer.book)).sum()) != layer.nonzeros:
        raise ValueError("there are not as many values as recorded")
    flat = torch.zeros(layer.numel, dtype=layer.dtype, device="cpu")
    values = torch.cat([layer.book, torch.zeros(1, device="cpu")])[torch.from_numpy(codes)]
    flat[torch.from_numpy(positions)] = values.to(layer.dtype)
    return flat.reshape(layer.shape)
