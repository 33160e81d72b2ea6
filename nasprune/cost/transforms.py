"""Fourier transforms and embedding bags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2

from nasprune.cost.calls import Call, Shape, amount
from nasprune.cost.counts import Count, Formula
from nasprune.cost.sizes import Product, dense

COMPLEX = ("fft_fft", "fft_ifft", "fft_fft2", "fft_ifft2", "fft_fftn", "fft_ifftn")
TO_HALF = ("fft_rfft", "fft_ihfft", "fft_rfft2", "fft_ihfft2", "fft_rfftn", "fft_ihfftn")
FROM_HALF = ("fft_irfft", "fft_hfft", "fft_irfft2", "fft_hfft2", "fft_irfftn", "fft_hfftn")


def _fourier(call: Call) -> Count:
    """Radix 2: n/2 · log2 n butterflies of four multiply-adds an axis of length n; half where one side is real."""
    source = call.given("self")
    axes = _axes(call, len(source))
    lengths = [dense(call.result[axis]) for axis in axes]
    if call.operator in TO_HALF:  # the last axis holds half of a spectrum: what counts is the length of the signal
        lengths[-1] = _asked(call) or dense(source[axes[-1]])
    signals = [size for axis, size in enumerate(source) if axis not in axes]
    once = _transform(lengths, real=call.operator not in COMPLEX)
    return Count(call.operator, (Product.of(*signals, once),))


def _axes(call: Call, dimensions: int) -> list[int]:
    found = call.value("dim")
    if found is None:
        lengths = call.value("s")
        found = range(-(len(lengths) if lengths else dimensions), 0)
    return [axis % dimensions for axis in ([found] if isinstance(found, int) else found)]


def _asked(call: Call) -> int | None:
    """The length that the call asks for on its last axis."""
    found = call.value("n") or (call.value("s") or [None])[-1]
    return found if isinstance(found, int) and found > 0 else None


def _transform(lengths: Sequence[int], *, real: bool) -> int:
    """Multiply-adds of one transform over axes of these lengths."""
    full = 2 * amount(lengths) * sum(log2(max(length, 1)) for length in lengths)
    return round(full / 2 if real else full)


def _short_time(call: Call) -> Count:
    """One transform of `n_fft` real numbers for every frame."""
    spectrum: Shape = call.result if call.operator == "stft" else call.given("self")
    real_pairs = call.operator == "stft" and call.value("return_complex") is False
    *batch, _, frames = spectrum[:-1] if real_pairs else spectrum
    return Count(call.operator, (Product.of(*batch, frames, _transform([call.value("n_fft")], real=True)),))


def _embedding_bag(call: Call) -> Count:
    """Every row that is looked up is added once."""
    return Count(call.operator, (Product.of(*call.given("indices"), call.given("weight")[1]),))


TRANSFORMS: Mapping[str, Formula] = {
    **dict.fromkeys((*COMPLEX, *TO_HALF, *FROM_HALF), _fourier),
    **dict.fromkeys(("stft", "istft"), _short_time),
    "embedding_bag": _embedding_bag,
}
