"""The format `openvino`: the intermediate representation of OpenVINO, read back by its runtime on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nasprune.common.factories import one_line
from nasprune.common.inputs import Inputs
from nasprune.deploy.captured import Captured
from nasprune.errors import InputError
from nasprune.graph.capture import quiet

TELEMETRY = "openvino_telemetry"


def check_packages() -> None:
    """Raises InputError where OpenVINO is missing."""
    if find_spec("openvino") is None:
        raise InputError("the format openvino needs openvino; install it with: pip install 'nasprune[openvino]'")


def write(found: Captured, path: Path) -> tuple[tuple[Path, ...], dict[str, str]]:
    """Writes the graph to `path` and the weights, which are not rounded, to the .bin beside it; what to say of it.

    Raises:
        InputError: OpenVINO has no form for an operation.
    """
    ov = _openvino()
    try:
        with quiet():
            model = ov.convert_model(found.program)
            model.reshape(dict(zip(model.inputs, _shapes(found, ov), strict=True)))
            ov.save_model(model, path, compress_to_fp16=False)
    except OSError:
        raise
    except Exception as error:  # OpenVINO raises whatever its passes raise
        raise InputError(
            f"OpenVINO cannot read the network: {one_line(error)[:300]}; export to onnx, which it reads as well"
        ) from error
    return (path, path.with_suffix(".bin")), {"written by openvino": ov.__version__.split("-")[0]}


def outputs(path: Path, calls: Sequence[Inputs]) -> list[list[Tensor]]:
    """What OpenVINO gives on the CPU in the network's own precision; else it takes the processor's fastest."""
    ov = _openvino()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    net = ov.Core().compile_model(path, "CPU", options)
    found = []
    for inputs in calls:
        given = net([tensor.numpy() for tensor in inputs.tensors])
        found.append([torch.from_numpy(given[output].copy()) for output in net.outputs])
    return found


def _shapes(found: Captured, ov: Any) -> Iterator[Any]:
    """The shapes of the tensors; OpenVINO forgets those that are fixed where another is free."""
    for tensor in found.inputs.tensors:
        free = found.batch is None and tensor.ndim > 0
        yield ov.PartialShape([-1, *tensor.shape[1:]] if free else list(tensor.shape))


def _openvino() -> Any:
    """The package, which sends nothing to its makers: it finds no package to do that with."""
    with _without(TELEMETRY):
        import openvino
    return openvino


@contextmanager
def _without(package: str) -> Iterator[None]:
    """The package cannot be imported while the context lasts."""
    known = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == package}
    if known:  # it is in use already
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
