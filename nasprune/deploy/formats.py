"""The formats: how a network is written in each, and how the file is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from nasprune.common.inputs import Inputs
from nasprune.deploy import executorch, module, onnx, openvino, programs, timm_text
from nasprune.deploy.captured import captured, filled
from nasprune.errors import InputError, UnknownNameError


@dataclass(frozen=True)
class Written:
    """What was written. files: the one to open first."""

    files: tuple[Path, ...]
    details: Mapping[str, str] = field(default_factory=dict)


class Writes(Protocol):
    """Writes a network to `path`. free: for any number of items. Raises InputError where that cannot be done."""

    def __call__(self, model: nn.Module, inputs: Inputs, path: Path, title: str, *, free: bool) -> Written: ...


@dataclass(frozen=True)
class Format:
    """suffix: of its file. outputs: what the file gives, for each call. check: raises InputError without a package.

    free: whether a file can be for any number of items. own: whether a file that is there may be replaced.
    """

    suffix: str
    write: Writes
    outputs: Callable[[Path, Sequence[Inputs]], Sequence[Any]]
    check: Callable[[], None] = lambda: None
    free: bool = True
    own: Callable[[Path], bool] = lambda path: True


def format_of(name: str | None, path: Path) -> str:
    """The format that is meant for the file.

    Raises:
        UnknownNameError: none is called so. InputError: a package is missing, or the suffix of the file is of none or
            of another format.
    """
    if name is None:
        name = next((known for known, form in FORMATS.items() if form.suffix == path.suffix), None)
    if name is None:
        suffixes = ", ".join(f"{form.suffix} ({known})" for known, form in FORMATS.items())
        raise InputError(f"the suffix of {path.name!r} says no format; end it with one of {suffixes}")
    check_format(name)
    if path.suffix != FORMATS[name].suffix:
        raise InputError(f"a file in the format {name} ends with {FORMATS[name].suffix!r}, got {path.name!r}")
    return name


def check_format(name: str) -> None:
    """Raises UnknownNameError where no format is called so, and InputError where a package is missing."""
    if name not in FORMATS:
        raise UnknownNameError("format", name, FORMATS)
    FORMATS[name].check()


def _onnx(model: nn.Module, inputs: Inputs, path: Path, title: str, *, free: bool) -> Written:
    return Written(*onnx.write(captured(model, inputs, free=free, tensors=True), path))


def _pt2(model: nn.Module, inputs: Inputs, path: Path, title: str, *, free: bool) -> Written:
    programs.write_pt2(captured(model, inputs, free=free), path)
    return Written((path,))


def _module(model: nn.Module, inputs: Inputs, path: Path, title: str, *, free: bool) -> Written:
    return Written(module.write(captured(model, inputs, free=free), path, title))


def _torchscript(model: nn.Module, inputs: Inputs, path: Path, title: str, *, free: bool) -> Written:
    return Written((path,), {"made": programs.write_torchscript(model, inputs, path)})


def _openvino(model: nn.Module, inputs: Inputs, path: Path, title: str, *, free: bool) -> Written:
    return Written(*openvino.write(captured(*filled(model, inputs), free=free, tensors=True), path))


def _executorch(model: nn.Module, inputs: Inputs, path: Path, title: str, *, free: bool) -> Written:
    return Written((path,), executorch.write(captured(*filled(model, inputs), free=free, tensors=True), path))


def _timm(model: nn.Module, inputs: Inputs, path: Path, title: str, *, free: bool) -> Written:
    return Written(timm_text.write(model, path))


FORMATS = {
    "onnx": Format(".onnx", _onnx, onnx.outputs, onnx.check_packages),
    "pt2": Format(".pt2", _pt2, programs.outputs_pt2),
    "torchscript": Format(".pt", _torchscript, programs.outputs_torchscript),
    "module": Format(".py", _module, module.outputs, own=module.made),
    "openvino": Format(".xml", _openvino, openvino.outputs, openvino.check_packages),
    "executorch": Format(".pte", _executorch, executorch.outputs, executorch.check_packages, free=False),
    "timm": Format(".txt", _timm, timm_text.outputs, timm_text.check_packages),
}
