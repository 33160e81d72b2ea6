"""The format `onnx`, by torch's exporter, read back by onnxruntime."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim
from torch.utils._pytree import MappingKey, tree_flatten_with_path, tree_unflatten

from nasprune.common.factories import one_line
from nasprune.common.inputs import Inputs
from nasprune.deploy.captured import BATCH, Captured
from nasprune.errors import InputError
from nasprune.graph.capture import quiet

NEEDED = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 1_900_000_000
"""Bytes of weights that one ONNX file can hold; more lie in a file beside it."""


def check_packages() -> None:
    """Raises InputError where a package is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f"the format onnx needs {' and '.join(missing)}; install with: pip install 'nasprune[onnx]'")


def write(found: Captured, path: Path) -> tuple[tuple[Path, ...], dict[str, str]]:
    """Writes the file, and one with the weights where they are large; the paths, and what is to be said of it.

    Raises:
        InputError: the exporter has no form for an operation.
    """
    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        try:
            made = torch.onnx.export(
                found.program, dynamo=True, verbose=False, dynamic_shapes=_axes(found), output_names=_names(found)
            )
            assert made is not None
            large = sum(value.numel() * value.element_size() for value in found.program.state_dict.values()) > LARGEST
            made.save(path, external_data=large)
        except Exception as error:  # the exporter raises whatever its passes raise
            raise InputError(f"torch cannot write the network as ONNX: {_cause(error)}; take another format") from error
    files = tuple(sorted(path.parent.glob(f"{path.name}*")))
    return files, {"opset": str(made.model.opset_imports.get("", "unknown"))}


def _cause(error: BaseException) -> str:
    """The first line of what the exporter failed of, which its own error tells in colours and many lines."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)[:300] or type(error).__name__


def outputs(path: Path, calls: Sequence[Inputs]) -> list[list[Tensor]]:
    """What onnxruntime gives on the CPU."""
    reader = session(str(path))
    names = [entry.name for entry in reader.get_inputs()]
    given = [dict(zip(names, (tensor.numpy() for tensor in inputs.tensors), strict=True)) for inputs in calls]
    return [[torch.as_tensor(value) for value in reader.run(None, each)] for each in given]


def session(source: str | bytes) -> Any:
    """What runs a file, or its bytes, on the CPU, with as many threads as torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _axes(found: Captured) -> Any:
    """The name of the free axis, which the exporter calls by a number of its own otherwise."""
    if found.batch is not None or found.inputs.kwargs or len(found.inputs.args) != len(found.inputs.leaves):
        return None
    free = Dim(BATCH)
    return tuple({0: free} if isinstance(value, Tensor) and value.ndim else None for value in found.inputs.args)


def _names(found: Captured) -> list[str] | None:
    """Names of the outputs by their keys, where the network gives a dict; `None` leaves them to the exporter."""
    spec = found.program.call_spec.out_spec
    if spec is None:
        return None
    leaves, _ = tree_flatten_with_path(tree_unflatten(range(spec.num_leaves), spec))
    if len(leaves) != spec.num_leaves or not all(
        isinstance(path[0] if path else None, MappingKey) for path, _ in leaves
    ):
        return None
    names = [".".join(str(getattr(part, "key", getattr(part, "idx", part))) for part in path) for path, _ in leaves]
    taken = {entry.arg.name for entry in found.program.graph_signature.input_specs if hasattr(entry.arg, "name")}
    return None if len(set(names)) < len(names) or taken & set(names) else names
