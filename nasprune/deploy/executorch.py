"""The format `executorch`: a program for phones and small devices, run by ExecuTorch in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from nasprune.common.factories import one_line
from nasprune.common.inputs import Inputs
from nasprune.deploy.apart import outputs_apart
from nasprune.deploy.captured import Captured
from nasprune.errors import InputError
from nasprune.graph.capture import quiet

THEN = "take the format onnx or pt2"
OPENED = """
from executorch.runtime import Runtime

program = Runtime.get().load_program(sys.argv[1])
method = program.load_method("forward")

def net(*tensors):
    return method.execute(tensors)
"""


def check_packages() -> None:
    """Raises InputError where ExecuTorch is missing."""
    if find_spec("executorch") is None:
        raise InputError("the format executorch needs executorch; install it with: pip install 'nasprune[executorch]'")


def write(found: Captured, path: Path) -> dict[str, str]:
    """Writes the program, as much of it as can be for XNNPACK; how many operators are not, which are the slow ones.

    Raises:
        InputError: ExecuTorch has no form for an operation.
    """
    try:
        with quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            lowered = to_edge_transform_and_lower(found.program, partitioner=[XnnpackPartitioner()])
            others = _others(lowered.exported_program().graph)
            made = lowered.to_executorch()
    except Exception as error:  # ExecuTorch raises whatever its passes raise
        raise InputError(f"ExecuTorch cannot write the network: {one_line(error)[:300]}; {THEN}") from error
    with path.open("wb") as file:
        made.write_to_file(file)
    return {"operators that XNNPACK does not run": str(others)}


def outputs(path: Path, calls: Sequence[Inputs]) -> list[list[Tensor]]:
    """What ExecuTorch gives on the CPU.

    Raises:
        InputError: it fails.
    """
    return outputs_apart(OPENED, path, calls, THEN)


def _others(graph: Any) -> int:
    """The operations that were left outside XNNPACK's parts."""
    names = [str(getattr(node.target, "__name__", node.target)) for node in graph.nodes if node.op == "call_function"]
    return sum(name not in ("executorch_call_delegate", "getitem") for name in names)
