"""The format `module`: one Python file and its weights beside it, which need torch and nothing else."""

from __future__ import annotations

import keyword
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

from torch import Tensor

from nasprune.common.inputs import Inputs
from nasprune.common.words import visible
from nasprune.deploy.apart import outputs_apart
from nasprune.deploy.captured import Captured
from nasprune.deploy.source import Source, source_of
from nasprune.errors import InputError
from nasprune.models.weights import to_bytes

PAGE = '''"""{title}

Made by `nasprune export`. It needs torch alone:

    from {stem} import load
    net = load()  # in eval mode, with the weights in {weights}
    y = net({inputs})

{batch} Layers that do nothing in eval mode, such as dropout, are left out.
"""

import json
import math
import operator
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

WEIGHTS = Path(__file__).with_name({weights!r})
DTYPES = {{
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "C64": torch.complex64,
}}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
{made}

    def forward(self, {inputs}):
{forward}


def load(path=WEIGHTS):
    """The network with its weights, in eval mode."""
    net = Net()
    net.load_state_dict(read(path))
    return net.eval()


def read(path):
    """The tensors of a safetensors file."""
    with open(path, "rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        body = bytearray(file.read())
    tensors = {{}}
    for name, entry in head.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            dtype = DTYPES[entry["dtype"]]
            if end > begin:
                flat = torch.frombuffer(body, dtype=dtype, count=(end - begin) // dtype.itemsize, offset=begin)
            else:
                flat = torch.empty(0, dtype=dtype)
            tensors[name] = flat.reshape(entry["shape"])
    return tensors
'''
MADE = "Made by `nasprune export`."
TAKEN = sys.stdlib_module_names | {"nasprune", "numpy", "safetensors", "torch"}
OPENED = """
from pathlib import Path

path = Path(sys.argv[1])
sys.path.insert(0, str(path.parent))
net = importlib.import_module(path.stem).load()
"""


def write(found: Captured, path: Path, title: str) -> tuple[Path, ...]:
    """Writes `path` and the weights beside it; the paths of both.

    Raises:
        InputError: the network runs what has no form in plain Python, or the file cannot be imported by its name.
    """
    if not path.stem.isidentifier() or keyword.iskeyword(path.stem):
        raise InputError(f"{path.name!r} cannot be imported by its name; call it for example small_net.py")
    if path.stem in TAKEN:
        raise InputError(f"{path.name!r} would hide the module {path.stem!r} of Python or torch; call it small_net.py")
    source = source_of(found.program)
    weights = path.with_suffix(".safetensors")
    path.write_text(page(source, path.stem, weights.name, title, found.batch), encoding="utf-8")
    names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    state = names["Net"]().state_dict()
    weights.write_bytes(to_bytes(state | {name: value.detach() for name, value in source.tensors.items()}))
    return path, weights


def page(source: Source, stem: str, weights: str, title: str, batch: int | None) -> str:
    """The text of the file."""
    return PAGE.format(
        title=visible(title).replace("\\", "/").replace('"', "'"),
        stem=stem,
        weights=weights,
        inputs=", ".join(source.inputs),
        batch="Any number of items in a batch." if batch is None else f"Batches of {batch}.",
        made=indent("\n".join(source.made) or "pass", " " * 8),
        forward=indent("\n".join(source.forward), " " * 8),
    )


def made(path: Path) -> bool:
    """Whether `write` has written the file, and no user."""
    return MADE.encode() in path.read_bytes()[:2000]


def outputs(path: Path, calls: Sequence[Inputs]) -> list[list[Tensor]]:
    """What the network in the file gives, in a process of its own in which nasprune cannot be imported.

    Raises:
        InputError: it fails there.
    """
    return outputs_apart(OPENED, path, calls, "take the format pt2 or onnx")
