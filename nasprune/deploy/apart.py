"""A file that was written, run in a process of its own: what a native runtime prints or aborts with stays there."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from nasprune.common.inputs import Inputs
from nasprune.errors import InputError
from nasprune.models.weights import read_tensors, to_bytes

RUN = """
import importlib
import sys
import torch
from safetensors.torch import load_file, save_file
from torch.utils._pytree import tree_leaves

sys.modules["nasprune"] = None
{opened}
for given in sys.argv[2:]:
    inputs = load_file(given)
    with torch.no_grad():
        outputs = net(*(inputs[str(index)] for index in range(len(inputs))))
    tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
    save_file({{str(index): leaf.contiguous().clone() for index, leaf in enumerate(tensors)}}, given + ".outputs")
"""
SECONDS = 600
OPERATOR = re.compile(r"in operator (\S+?):\s")
"""Where ExecuTorch says, before the error that Python sees, what failed."""


def outputs_apart(opened: str, path: Path, calls: Sequence[Inputs], then: str) -> list[list[Tensor]]:
    """What a network in a file gives where nasprune cannot be imported, for each call.

    Args:
        opened: lines of Python that make `net`, which takes tensors, of the file `sys.argv[1]`.
        then: what to do where it fails.

    Raises:
        InputError: it fails there, or takes more than `SECONDS`.
    """
    with tempfile.TemporaryDirectory() as folder:
        given = [Path(folder) / str(number) for number in range(len(calls))]
        for place, inputs in zip(given, calls, strict=True):
            place.write_bytes(to_bytes({str(index): tensor.clone() for index, tensor in enumerate(inputs.tensors)}))
        command = [sys.executable, "-c", RUN.format(opened=opened.strip()), str(path.resolve()), *map(str, given)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False, cwd=folder
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(f"the file that was written runs for more than {SECONDS} s; {then}") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            operator = OPERATOR.search(done.stderr)
            where = f", in {operator[1]}" if operator else ""
            raise InputError(f"the file that was written does not run: {last}{where}; {then}")
        return [_in_order(read_tensors(Path(f"{place}.outputs"))) for place in given]


def _in_order(found: dict[str, Tensor]) -> list[Tensor]:
    return [found[str(index)] for index in range(len(found))]
