"""Huffman codes of small whole numbers, in canonical form, so that the lengths of the words are all that is stored.

Huffman 1952, "A method for the construction of minimum-redundancy codes", Proceedings of the IRE 40(9). The mean length
is below the entropy plus one bit. Where only one number occurs its word has no bits.
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
LONGEST = 56
"""Bits of a word; a code of 2^38 numbers cannot have longer ones."""
CHUNK = 2**20
"""Bits that are read at once."""


def lengths_of(counts: Ints) -> Bytes:
    """Bits of each number's word (symbols,), for how often it occurs; 0 where it does not, or where no other does."""
    heap: list[tuple[int, int, tuple[int, ...]]] = [
        (int(count), symbol, (symbol,)) for symbol, count in enumerate(counts) if count
    ]
    found = np.zeros(len(counts), dtype=np.uint8)
    heapq.heapify(heap)
    while len(heap) > 1:
        (first, order, ones), (second, _, others) = heapq.heappop(heap), heapq.heappop(heap)
        joined = ones + others
        found[list(joined)] += 1
        heapq.heappush(heap, (first + second, order, joined))
    return found


def encode(values: Ints, lengths: Bytes) -> Bytes:
    """The words of all values, one behind the other, filled up with zeros to whole bytes."""
    words = _words(lengths)
    sizes = lengths[values].astype(np.int64)
    ends = np.cumsum(sizes)
    bits = np.zeros(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
    starts = ends - sizes
    for place in range(int(lengths.max(initial=0))):
        longer = sizes > place
        shift = (sizes[longer] - 1 - place).astype(np.uint64)
        bits[starts[longer] + place] = (words[values[longer]] >> shift) & np.uint64(1)
    return np.packbits(bits)


def decode(packed: Bytes, lengths: Bytes, count: int, only: int = 0) -> Ints:
    """The `count` values that `encode` wrote. only: the number that occurs, where all lengths are 0.

    Raises:
        ValueError: the lengths are those of no code, or the bytes hold more or fewer words.
    """
    if not lengths.any():
        if len(packed):
            raise ValueError("there are bytes of words that have none")
        return np.full(count, only, dtype=np.int64)
    check(lengths)
    order = np.lexsort((np.arange(len(lengths)), lengths))
    order = order[lengths[order] > 0]
    firsts = _words(lengths)[order] << (LONGEST - lengths[order]).astype(np.uint64)
    padded = np.concatenate([packed, np.zeros(16, dtype=np.uint8)])
    total, at, found = 8 * len(packed), 0, []
    left = count
    while left and at < total:
        until = min(at + CHUNK, total)
        symbols = order[np.searchsorted(firsts, _windows(padded, at, until), side="right") - 1]
        taken = _followed(lengths[symbols].tolist(), left)
        found.append(symbols[taken])
        left -= len(taken)
        if left == 0 and at + taken[-1] + int(lengths[symbols[taken[-1]]]) > total:
            raise ValueError("the last word is broken off")
        at += taken[-1] + int(lengths[symbols[taken[-1]]])
    if left or total - at >= 8:
        raise ValueError(f"expected {count:,} words, there are {'fewer' if left else 'more'}")
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def check(lengths: Bytes) -> None:
    """Raises ValueError unless these are the lengths of a code that uses every sequence of bits."""
    used = lengths[lengths > 0].astype(np.int64)
    if len(used) and (used.max() > LONGEST or int(sum(1 << (LONGEST - int(size)) for size in used)) != 1 << LONGEST):
        raise ValueError("the lengths of the words are those of no code")


def _words(lengths: Bytes) -> npt.NDArray[np.uint64]:
    """Canonical: by length, then by number, each the one before plus one."""
    words = np.zeros(len(lengths), dtype=np.uint64)
    word = size = 0
    for symbol in np.lexsort((np.arange(len(lengths)), lengths)):
        if lengths[symbol]:
            word <<= int(lengths[symbol]) - size
            size = int(lengths[symbol])
            words[symbol] = word
            word += 1
    return words


def _windows(padded: Bytes, start: int, end: int) -> npt.NDArray[np.uint64]:
    """The next `LONGEST` bits at every place from `start` to `end`, as numbers."""
    first = start // 8
    stretch = padded[first : (end + 7) // 8 + 8].astype(np.uint64)
    whole = np.zeros(len(stretch) - 7, dtype=np.uint64)
    for place in range(8):
        whole |= stretch[place : place + len(whole)] << np.uint64(56 - 8 * place)
    places = np.arange(start, end)
    return (whole[places // 8 - first] << (places % 8).astype(np.uint64)) >> np.uint64(64 - LONGEST)


def _followed(lengths: list[int], most: int) -> list[int]:
    """Where words begin, from 0 on, as long as there are places and words are wanted."""
    taken: list[int] = []
    at, end = 0, len(lengths)
    while at < end and len(taken) < most:
        taken.append(at)
        at += lengths[at]
    return taken
