"""`nasprune.compress`: a network in a file of few bytes; `nasprune.decompress`: its weights again.

Han, Mao, Dally 2016, "Deep compression: compressing deep neural networks with pruning, trained quantization and Huffman
coding", arXiv:1510.00149: shared values for weights, gaps between those that are not zero, and Huffman codes for both.
Every weight with two axes or more is encoded; biases, norms and buffers are kept as they are. The paper's bits are the
defaults: 8 for values of convolutions and 5 of layers, gaps of 8 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from nasprune.codec.layers import Layer, decoded, encoded
from nasprune.codec.record import packed, unpacked
from nasprune.codec.sizes import Sizes, sizes
from nasprune.common.accepted import accepted
from nasprune.common.arguments import path as as_path
from nasprune.common.arguments import whole_number
from nasprune.common.files import check_places, content_of, write_all
from nasprune.common.states import state_tensors
from nasprune.common.untouched import twin
from nasprune.errors import InputError
from nasprune.models.values import FLOATS, wrong_values
from nasprune.models.weights import copy_into, fit

CONVOLUTION, LINEAR = 8, 5
"""Bits of shared values, and of gaps."""
MOST = 16
LARGEST = 2**31
"""Bytes of a file."""
THEN = "give a file that nasprune compress wrote"


@dataclass(frozen=True)
class Compressed:
    """What was written. model: the network with the shared values, as `decompress` gives it. error: the root of the

    squared changes of the encoded weights, as a share of the root of their squares.
    """

    path: Path
    sizes: Sizes
    error: float
    model: nn.Module = field(repr=False)


def compress(model: nn.Module, path: str | Path, *, bits: int | None = None, gap_bits: int | None = None) -> Compressed:
    """Writes a network to one small file.

    Args:
        model: any network, best with many zeros; left as it is.
        path: of the file; one of an earlier call is replaced.
        bits: of the number of a shared value, so that a weight has at most 2^bits different ones.
        gap_bits: of the zeros skipped between two values.

    Raises:
        InputError: an argument cannot be used, a weight is not finite, or the file cannot be written.
    """
    place = as_path("path", path, "write nasprune.compress(model, 'small.safetensors')")
    for name, given in (("bits", bits), ("gap_bits", gap_bits)):
        if given is not None:
            whole_number(name, given, f"write for example {name}=5")
            if not 1 <= given <= MOST:
                raise InputError(f"`{name}` must lie in 1..{MOST}, got {given}; write for example {name}=5")
    check_places(place.parent, (place.name,))
    _check_own(place)
    small = twin(accepted(model)).cpu().eval()
    layers, rest = {}, {}
    for name, value in _tensors(small).items():
        if value.ndim < 2 or value.dtype not in FLOATS:
            rest[name] = value
            continue
        if reason := wrong_values(name, value, parameter=True):
            raise InputError(f"weights of the network: {name!r} {reason}")
        usual = CONVOLUTION if value.ndim > 2 else LINEAR
        layers[name] = encoded(value, bits or usual, gap_bits or usual)
    content = packed(layers, rest)
    found = {name: decoded(layer) for name, layer in layers.items()}
    error = _apart({name: small.state_dict()[name] for name in found}, found)
    copy_into(small, found)
    write_all(place.parent, {place.name: content})
    return Compressed(place, sizes(layers, rest, len(content)), error, small)


def decompress(path: str | Path, model: nn.Module) -> nn.Module:
    """The network in a file that `compress` wrote. model: of the same shapes, with any weights; left as it is.

    Raises:
        InputError: the file is damaged, or of another network.
    """
    place = as_path("path", path, "write nasprune.decompress('small.safetensors', model)")
    layers, rest = read(place)
    small = twin(accepted(model)).eval()
    state = state_tensors(small)
    for name, layer in layers.items():
        if name not in state or tuple(state[name].shape) != layer.shape:
            has = f"shape {list(state[name].shape)}" if name in state else "none"
            raise InputError(
                f"{str(place)!r} holds {name!r} of shape {list(layer.shape)}, the model has {has}; give the network "
                "that was compressed"
            )
    try:
        values = {name: decoded(layer) for name, layer in layers.items()}
    except ValueError as error:
        raise InputError(f"{str(place)!r} is damaged: {error}; {THEN}") from error
    fit(small, {**values, **rest}, place)
    return small


def sizes_in(path: Path) -> Sizes:
    """What a compressed file holds, without decoding it. Raises InputError where it is damaged."""
    return sizes(*read(path), path.stat().st_size)


def read(path: Path) -> tuple[Mapping[str, Layer], Mapping[str, Tensor]]:
    """Encoded weights and the other tensors of a file. Raises InputError where it is damaged."""
    return unpacked(content_of(path, "the compressed network", THEN, most=LARGEST), repr(str(path)), THEN)


def _check_own(place: Path) -> None:
    """Raises InputError where a file is there that is no compressed network, such as the weights of a run."""
    if not place.is_file():
        return
    try:
        read(place)
    except InputError as error:
        raise InputError(
            f"{str(place)!r} is there already and is no compressed network; choose another name, or delete it"
        ) from error


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state of a network, one that has several names under its first."""
    seen: set[tuple[int, tuple[int, ...]]] = set()
    found = {}
    for name, value in state_tensors(model).items():
        key = (value.data_ptr(), tuple(value.shape))
        if not value.numel() or key not in seen:
            found[name] = value.detach()
        seen.add(key)
    return found


def _apart(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    changed = sum(float((before[name].double() - value.double()).square().sum()) for name, value in after.items())
    whole = sum(float(value.double().square().sum()) for value in before.values())
    return float(np.sqrt(changed / whole)) if whole else 0.0
