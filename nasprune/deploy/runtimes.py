"""Runtimes by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nasprune.cost.runtimes import Compiled, Eager, Runtime
from nasprune.deploy.onnxruntime import OnnxRuntime
from nasprune.errors import UnknownNameError

RUNTIMES: Mapping[str, Callable[[], Runtime]] = {each.name: each for each in (Eager, Compiled, OnnxRuntime)}


def runtime_of(name: str) -> Runtime:
    """The runtime of that name. Raises UnknownNameError where there is none."""
    if name not in RUNTIMES:
        raise UnknownNameError("runtime", name, RUNTIMES)
    return RUNTIMES[name]()
