"""The file of a compressed network: safetensors of bytes, and a sealed JSON record of what they mean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from nasprune.codec.huffman import Bytes
from nasprune.codec.layers import STREAMS, Layer, Stream
from nasprune.common.factories import one_line
from nasprune.common.fields import Field, Source, parse
from nasprune.common.seals import sealed, unsealed
from nasprune.models.values import FLOATS

FORMAT = 1
HEADER = "nasprune"
AXES, SIZE = 16, 2**40
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in FLOATS}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def packed(layers: Mapping[str, Layer], rest: Mapping[str, Tensor]) -> bytes:
    """The bytes of the file."""
    from safetensors.torch import save

    tensors = {f"rest.{name}": value.contiguous().clone() for name, value in rest.items()}
    for number, layer in enumerate(layers.values()):
        tensors[f"{number}.book"] = layer.book
        for kind in STREAMS:
            stream: Stream = getattr(layer, kind)
            tensors[f"{number}.{kind}"] = torch.from_numpy(stream.packed)
            tensors[f"{number}.{kind}.lengths"] = torch.from_numpy(stream.lengths)
    record = {
        "format": FORMAT,
        "layers": {
            name: {
                "shape": list(layer.shape),
                "dtype": _NAMES[layer.dtype],
                "entries": layer.entries,
                "nonzeros": layer.nonzeros,
                "only": [layer.codes.only, layer.gaps.only],
            }
            for name, layer in layers.items()
        },
        "content": _digest(tensors),
    }
    return save(tensors, metadata={HEADER: json.dumps(sealed(record), separators=(",", ":"))})


def unpacked(content: bytes, name: str, then: str) -> tuple[dict[str, Layer], dict[str, Tensor]]:
    """What `packed` wrote. name: of the file, for messages. then: what to do where it is damaged.

    Raises:
        InputError: it is damaged, or something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    source = Source(name, "a compressed network", then)
    try:
        tensors = load(content)
        size = int.from_bytes(content[:8], "little")
        text = json.loads(content[8 : 8 + size]).get("__metadata__", {}).get(HEADER, "")
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise source.wrong(one_line(error)[:200]) from error
    if not isinstance(text, str):
        raise source.wrong("its record is no text")
    found = unsealed(parse(text, source)).parts("format", "layers", "content")
    if found["format"].value != FORMAT:
        raise found["format"].wrong(f"format {FORMAT}")
    if found["content"].text() != _digest(tensors):
        raise source.wrong("its bytes do not match their digest")
    layers = {
        layer: _layer(field, number, tensors, source)
        for number, (layer, field) in enumerate(found["layers"].members().items())
    }
    return layers, {key.removeprefix("rest."): value for key, value in tensors.items() if key.startswith("rest.")}


def _layer(field: Field, number: int, tensors: Mapping[str, Tensor], source: Source) -> Layer:
    parts = field.parts("shape", "dtype", "entries", "nonzeros", "only")
    shape = parts["shape"].wholes(0, SIZE, AXES)
    count = 1
    for size in shape:
        count *= size
    if count > SIZE:
        raise parts["shape"].wrong("a shape of a weight")
    if parts["dtype"].text() not in _DTYPES:
        raise parts["dtype"].wrong(f"one of {', '.join(_DTYPES)}")
    only = parts["only"].wholes(0, SIZE, 2)
    book = tensors.get(f"{number}.book")
    if len(only) != 2 or book is None or book.dtype != torch.float32 or book.ndim != 1 or not book.isfinite().all():
        raise field.wrong("a layer with its shared values")
    streams = [
        Stream(_bytes(tensors, f"{number}.{kind}", source), _bytes(tensors, f"{number}.{kind}.lengths", source), one)
        for kind, one in zip(STREAMS, only, strict=True)
    ]
    entries = parts["entries"].whole(0, count)
    nonzeros = parts["nonzeros"].whole(0, entries)
    return Layer(shape, _DTYPES[parts["dtype"].text()], book, streams[0], streams[1], entries, nonzeros)


def _bytes(tensors: Mapping[str, Tensor], name: str, source: Source) -> Bytes:
    value = tensors.get(name)
    if value is None or value.dtype != torch.uint8 or value.ndim != 1:
        raise source.wrong(f"{name!r} is not there")
    found: Bytes = value.numpy()
    return found


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """64 hexadecimal digits over names, shapes, kinds and values."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return found.hexdigest()
