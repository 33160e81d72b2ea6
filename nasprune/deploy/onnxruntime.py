"""onnxruntime as what runs a network while it is timed: the whole network as exported, and single layers."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from nasprune.common.factories import one_line
from nasprune.common.inputs import Inputs
from nasprune.common.untouched import twin
from nasprune.cost.runtimes import Runtime
from nasprune.cost.timed_layers import Sized
from nasprune.deploy import onnx
from nasprune.deploy.captured import captured
from nasprune.errors import InputError
from nasprune.graph.capture import quiet

OPSET = 18
THEN = "take --runtime eager, or compile"


class OnnxRuntime(Runtime):
    """The CPU provider, with as many threads as torch uses, on a file for exactly these shapes."""

    name = "onnxruntime"

    def __init__(self) -> None:
        self._traces = True
        self._sessions: WeakKeyDictionary[nn.Module, tuple[tuple[str, bool], Any]] = WeakKeyDictionary()

    @property
    def layers_by(self) -> str:
        return f"onnxruntime {version('onnxruntime')}"

    def check(self, device: torch.device) -> None:
        onnx.check_packages()
        if device.type != "cpu":
            raise InputError(f"onnxruntime is timed on the CPU, and the model lies on {device}; {THEN}")

    def begin(self) -> None:
        """A network that is over takes its session with it."""

    def ready(self, model: nn.Module, inputs: Inputs, *, trial: bool = False) -> Callable[[Inputs], object]:
        """Written once for inputs of the same shapes, however often it is asked for: what changes later is not seen.

        Trials are written by torch's older exporter, where it can, in a tenth of the time.
        """
        wanted, (known, session) = (str(inputs), trial), self._sessions.get(model, (("", False), None))
        if known != wanted:
            session = _traced(model, inputs) if trial and self._traces else None
            if session is None:
                self._traces = self._traces and not trial
                session = _session(model, inputs)
            self._sessions[model] = wanted, session
        names = [entry.name for entry in session.get_inputs()]
        return lambda own: session.run(None, dict(zip(names, (value.numpy() for value in own.tensors), strict=True)))

    def layer(self, sized: Sized, device: torch.device) -> Callable[[], object]:
        session = _session_of(_model(sized))
        given = {"x": torch.randn(sized.shape).to(sized.dtype).numpy()}
        return lambda: session.run(None, given)


@torch.inference_mode(mode=False)
def _traced(model: nn.Module, inputs: Inputs) -> Any | None:
    """The network as torch's older exporter traces it; `None` where that fails, or takes no such inputs."""
    if inputs.kwargs or not all(isinstance(value, Tensor) for value in inputs.args):
        return None
    given = tuple(tensor.detach().clone() for tensor in inputs.tensors)
    with tempfile.TemporaryDirectory(prefix="nasprune-") as folder, quiet(), contextlib.redirect_stdout(io.StringIO()):
        path = str(Path(folder) / "tried.onnx")
        try:
            with _muted():
                torch.onnx.export(twin(model).eval(), given, path, dynamo=False, opset_version=OPSET)
            session = onnx.session(path)
            return session if len(session.get_inputs()) == len(given) else None
        except Exception:  # of whatever kind: the other exporter says what is wrong
            return None


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Nothing reaches the standard output meanwhile, where the exporter's C++ prints the whole graph on a failure."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        try:
            ctypes.CDLL(None).fflush(None)
        finally:
            os.dup2(kept, 1)
            os.close(kept)


@torch.inference_mode(mode=False)
def _session(model: nn.Module, inputs: Inputs) -> Any:
    """The network as exported.

    Raises:
        InputError: it cannot be.
    """
    small = twin(model).eval()
    with tempfile.TemporaryDirectory(prefix="nasprune-") as folder:
        path = Path(folder) / "timed.onnx"
        plain = inputs.map(lambda tensor: tensor.detach().clone())
        try:
            onnx.write(captured(small, plain, free=False, tensors=True), path)
        except InputError as error:
            raise InputError(f"{error}; for a budget of latency {THEN}") from error
        return _session_of(str(path))


def _session_of(source: str | bytes) -> Any:
    """Raises InputError where onnxruntime has no code for an operation."""
    try:
        return onnx.session(source)
    except Exception as error:  # of onnxruntime's own kinds, which have no base of their own
        raise InputError(f"onnxruntime cannot run the network: {one_line(error)}; {THEN}") from error


def _model(sized: Sized) -> bytes:
    """The layer with random weights as the bytes of an ONNX file."""
    from onnx import helper, numpy_helper

    if sized.dtype not in (torch.float32, torch.float16, torch.float64):
        raise InputError(f"onnxruntime runs no layers of {sized.dtype} on a CPU; {THEN}")

    def values(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(torch.randn(shape).to(sized.dtype).numpy(), name)

    kind = helper.np_dtype_to_tensor_dtype(torch.empty(0, dtype=sized.dtype).numpy().dtype)
    bias = [values("b", sized.weight[0])] if sized.bias else []
    names = ["x", "w", *(["b"] if bias else [])]
    weight = values("w", *sized.weight)
    if sized.operator != "linear":
        nodes = [helper.make_node("Conv", names, ["y"], **_settings(sized))]
    elif len(sized.shape) == 2:
        nodes = [helper.make_node("Gemm", names, ["y"], transB=1)]
    else:
        weight = values("w", *sized.weight[::-1])
        nodes = [helper.make_node("MatMul", ["x", "w"], ["m" if bias else "y"])]
        nodes += [helper.make_node("Add", ["m", "b"], ["y"])] if bias else []
    x, y = (helper.make_tensor_value_info(name, kind, shape) for name, shape in (("x", sized.shape), ("y", None)))
    graph = helper.make_graph(nodes, "layer", [x], [y], [weight, *bias])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    text: bytes = made.SerializeToString()
    return text


def _settings(sized: Sized) -> dict[str, Any]:
    """The attributes of a convolution."""
    padding: dict[str, Any] = {"pads": [*sized.padding] * 2}
    if isinstance(sized.padding, str):
        padding = {"auto_pad": {"same": "SAME_UPPER", "valid": "VALID"}[sized.padding]}
    return {
        "kernel_shape": sized.weight[2:],
        "strides": sized.stride,
        "dilations": sized.dilation,
        "group": sized.groups,
        **padding,
    }
