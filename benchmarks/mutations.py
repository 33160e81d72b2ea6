"""Files damaged at random: bytes flipped, cut, doubled and exchanged; values of JSON, and tensors, replaced."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

import torch
from safetensors.torch import load, save

TOKENS = (
    *(b"NaN", b"-Infinity", b"1e999", b"-1", b"0.5", b"null", b"true", b"[]", b"{}", b'"', b"\\", b"\n", b"\0" * 9),
    *(b"9" * 5000, b"[" * 100_000, b'{"a":' * 20_000, b"\xff\xfe", b"\xe2\x80\xa8", b"\\ud800", b"\x1b[2J"),
    *(b'"evil.py:make"', b"evil:make", b"os:system", b"__import__('evil')", b"!!python/object/apply:os.system [id]"),
    *(b"range(10**12)", b"0x" + b"f" * 6000, b"(" * 5000, b"&a [*a, *a]", b"2**9999", b"lambda: 0"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, 1.0, 10**7, 2**31, 2**63, 2**70, 10**30, 1e308, float("nan"), float("inf")),
    *(
        "",
        "x",
        "0",
        "evil.py:make",
        "evil:make",
        "os:system",
        "got/evil.py:Space",
        "../../x",
        "\x1b[2J",
        "\ud800",
        "\0",
    ),
    *(
        "float99",
        "save",
        "nn",
        "int4",
        "x" * 20_000,
        "darts(ops=[1])",
        "nasbench201(a=9**9**9)",
        "nasbench201(" + "(" * 999,
    ),
    *([], {}, [[]], [1], [-1], [1.5], ["a"], {"a": 1}, [0] * 3000, [10**6, 10**6], {"format": 2}, [[["none", 0, 1]]]),
)
DTYPES = (torch.int8, torch.bool, torch.float16, torch.float64, torch.complex64, torch.int64, torch.bfloat16)


def of_bytes(content: bytes, rng: Random) -> bytes:
    """Up to three changes of single bytes, of slices, or by a token that means something to some reader."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        start = rng.randrange(len(changed) + 1)
        end = min(len(changed), start + rng.choice((1, 1, 4, 40, len(changed))))
        kind = rng.randrange(6)
        if kind == 0 and start < len(changed):
            changed[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[start:end]
        elif kind == 2:
            changed[start:start] = changed[start:end]
        elif kind == 3:
            changed[start:start] = rng.choice(TOKENS)
        elif kind == 4:
            changed[start:end] = rng.choice(TOKENS)
        else:
            changed[start:end] = rng.randbytes(end - start)
    return bytes(changed)


def of_json(record: Any, rng: Random) -> Any:
    """A copy with one value replaced, taken out, doubled or renamed, anywhere in it."""
    changed = copy.deepcopy(record)
    owner, key = rng.choice(list(_places(changed)))
    kind = rng.randrange(6)
    if kind == 0:
        del owner[key]
    elif kind == 1 and isinstance(owner, list):
        owner.insert(rng.randrange(len(owner) + 1), copy.deepcopy(owner[key]))
    elif kind == 1:
        owner[rng.choice(("evil", "\x1b", "digest2", str(key) + " "))] = owner.pop(key)
    elif kind == 2:
        other, place = rng.choice(list(_places(record)))
        owner[key] = copy.deepcopy(other[place])
    elif kind == 3 and isinstance(owner[key], int):
        owner[key] += rng.choice((-1, 1, 2, 1000))
    else:
        owner[key] = copy.deepcopy(rng.choice(VALUES))
    return changed


def of_tensors(content: bytes, rng: Random) -> bytes:
    """A safetensors file with one tensor of another type or shape, with other values, renamed, or gone."""
    tensors = load(content)
    name = rng.choice(sorted(tensors))
    value, kind = tensors[name], rng.randrange(7)
    if kind == 0:
        del tensors[name]
    elif kind == 1:
        tensors[rng.choice(("evil", "\x1b[2J", name + "x"))] = tensors.pop(name)
    elif kind == 2:
        tensors[name] = value.to(rng.choice(DTYPES))
    elif kind == 3:
        tensors[name] = torch.zeros(rng.choice(((), (0,), (1,), (*value.shape, 1), (3, 3))))
    elif value.is_floating_point() and value.numel():
        value.view(-1)[rng.randrange(value.numel())] = rng.choice((float("nan"), float("inf"), -1.0, 1e30))
    else:
        tensors[name] = value + 1
    return save({key: tensor.contiguous() for key, tensor in tensors.items()})


def json_text(record: Any) -> bytes:
    """The record as a file would hold it."""
    return json.dumps(record, indent=1).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])
