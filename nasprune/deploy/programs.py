"""The formats `pt2` and `torchscript`: files of torch itself."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nasprune.common.calls import plain_attention
from nasprune.common.inputs import Inputs
from nasprune.common.untouched import undisturbed
from nasprune.deploy.captured import Captured
from nasprune.errors import InputError
from nasprune.graph.capture import quiet


def write_pt2(found: Captured, path: Path) -> None:
    """Writes the program with `torch.export.save`."""
    with quiet():
        torch.export.save(found.program, path)


def outputs_pt2(path: Path, calls: Sequence[Inputs]) -> list[Any]:
    """What the program in the file gives."""
    with quiet():
        program = torch.export.load(path).module()
        return [inputs.call(program) for inputs in calls]


def write_torchscript(model: nn.Module, inputs: Inputs, path: Path) -> str:
    """Writes the network as TorchScript; how it was made: "scripted", with its control flow, or "traced".

    Raises:
        InputError: it can be neither.
    """
    with undisturbed(model), plain_attention(), warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        try:
            made, how = torch.jit.script(model), "scripted"
        except Exception:  # most code is no TorchScript
            made, how = _traced(model, inputs), "traced"
        torch.jit.save(made, path)
    return how


def outputs_torchscript(path: Path, calls: Sequence[Inputs]) -> list[Any]:
    """What the network in the file gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.load(path)  # type: ignore[no-untyped-call]
        return [inputs.call(script) for inputs in calls]


def _traced(model: nn.Module, inputs: Inputs) -> Any:
    options: dict[str, Any] = {"check_trace": False, "strict": False}
    given = {"example_kwarg_inputs": dict(inputs.kwargs)} if inputs.kwargs else {"example_inputs": inputs.args}
    try:
        if inputs.kwargs and inputs.args:
            raise InputError("torch.jit.trace takes positional arguments or those by name, not both")
        return torch.jit.trace(model, **given, **options)  # type: ignore[no-untyped-call]
    except Exception as error:
        text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"the network becomes no TorchScript: {text[:300]}; take another --format") from error
