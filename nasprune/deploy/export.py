"""`nasprune.export`: a network in a file that runs without nasprune, read back and compared before it is kept."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from nasprune.common.accepted import accepted
from nasprune.common.arguments import path as as_path
from nasprune.common.factories import one_line
from nasprune.common.files import check_places, drop_empty, make_folder, unwritable
from nasprune.common.html import code, in_notebook, text
from nasprune.common.inputs import ExampleInputs, Inputs
from nasprune.common.untouched import twin, undisturbed
from nasprune.deploy.captured import items
from nasprune.deploy.difference import difference
from nasprune.deploy.formats import FORMATS, Format, format_of
from nasprune.errors import InputError, NaspruneError, VerificationError
from nasprune.graph.capture import check_runs

log = logging.getLogger(__name__)
TOLERANCE = 1e-4
BLIND = (
    "what the network gives hardly depends on these inputs, as with weights that are not trained, so the comparison "
    "says little"
)
SIZES = (1, 3)
"""Numbers of items that a file for any number is compared on, besides that of the first comparison."""


@dataclass(frozen=True)
class Exported:
    """A network in a file.

    files: the one to open first. error: the largest difference from the network in PyTorch, as a share of the largest
    output; at most `TOLERANCE`. batch: how many items it takes, `None` for any number. details: such as "opset".
    note: what the comparison says less than it seems to; mostly empty.
    """

    format: str
    files: tuple[Path, ...]
    error: float
    batch: int | None
    details: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        batch = "batches of any size" if self.batch is None else f"batches of {self.batch}"
        more = "".join(f", {name} {value}" for name, value in self.details.items())
        return f"{self.format}{more}, {batch}; differs from PyTorch by {self.error:.1e} of the largest output"

    def _repr_html_(self) -> str:
        """For notebooks."""
        files = ", ".join(code(str(file)) for file in self.files)
        return in_notebook(
            [f"<p>{text(str(self))}</p>", f"<p>{files}</p>", f"<p>{text(self.note)}</p>" * bool(self.note)]
        )


@torch.inference_mode(mode=False)
def export(
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | Path,
    *,
    format: str | None = None,
    title: str = "",
) -> Exported:
    """Writes a network as ONNX, as a program of torch, or as plain Python, and compares what it gives before it stays.

    Args:
        model: any network, such as `result.model`; exported in eval mode and on the CPU, left as it is.
        example_inputs: what it is called with, as for `nasprune.trace`. Where all tensors share the size of axis 0 the
            file takes any number of items, if the network allows it; `Exported.batch` tells.
        path: of the file; its suffix says the format where `format` does not. A file that is there is replaced.
        format: "onnx" (.onnx; checked by onnxruntime), "pt2" (.pt2, for torch.export.load), "torchscript" (.pt),
            "module" (.py and .safetensors: a class that needs torch alone; checked in a process of its own),
            "openvino" (.xml and .bin), "executorch" (.pte, for as many items as `example_inputs` has), or for networks
            of timm "timm" (.txt, .safetensors and .json: widths as timm reads them).
        title: a line for the head of a "module".

    Raises:
        InputError: the network has no form in this format, a package is missing, or the file cannot be written.
        VerificationError: what was written gives something else; nothing is kept.
    """
    place = as_path("path", path, "write nasprune.export(model, inputs, 'small.onnx')")
    kind = format_of(format, place)
    check_places(place.parent, (place.name,))
    _check_own(FORMATS[kind], place)
    copied = twin(accepted(model)).cpu().eval()
    inputs = Inputs.of(example_inputs, copied).to(torch.device("cpu")).fitting(copied)
    check_runs(copied, inputs)
    head = " ".join((title or type(model).__name__).split())
    made = make_folder(place.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{place.stem}.", dir=place.parent) as folder:
            done = _compared(FORMATS[kind], kind, copied, inputs, Path(folder) / place.name, head)
            _check_beside(place, done.files[1:])
            for file in done.files:
                os.replace(file, place.parent / file.name)
    except OSError as error:
        raise unwritable(place.parent, error) from error
    finally:
        drop_empty(made)
    files = tuple(place.parent / file.name for file in done.files)
    return Exported(kind, files, done.error, done.batch, done.details, BLIND if _is_blind(copied, inputs) else "")


def _check_own(form: Format, place: Path) -> None:
    """Raises InputError where a file is there that an export has not written, and that is hard to write again."""
    if place.is_file() and not form.own(place):
        raise InputError(f"{str(place)!r} is there already and was not written by an export; choose another name")


def _check_beside(place: Path, beside: Sequence[Path]) -> None:
    """Raises InputError where a file beside `place` would replace one that no export to `place` can have written."""
    taken = next((file.name for file in beside if not place.exists() and (place.parent / file.name).exists()), None)
    if taken is not None:
        raise InputError(
            f"{place.name!r} needs {taken!r} beside it, and a file of that name is there already, of something else; "
            "choose another name or folder"
        )


def _compared(form: Format, kind: str, model: nn.Module, inputs: Inputs, path: Path, title: str) -> Exported:
    """Writes for any number of items where that can be had, else for the number given, and compares."""
    pair = items(inputs, 2)
    if form.free and pair is not None and pair.runs(model):
        try:
            written = form.write(model, pair, path, title, free=True)
            error = _error(form, model, path, [pair, *_others(inputs)])
            if error <= TOLERANCE:
                return Exported(kind, written.files, error, None, written.details)
            log.info("for any number of items it differs by %.1e; it is written for the number given", error)
        except Exception as why:  # its code needs to know how many items there are; what else is wrong shows below
            log.info("not for any number of items, but for the number given: %s", one_line(why))
    try:
        written = form.write(model, inputs, path, title, free=False)
        error = _error(form, model, path, [inputs])
    except (NaspruneError, OSError):
        raise
    except Exception as failure:  # whatever another library raises on what it wrote or reads
        raise InputError(
            f"the network cannot be written and run as {kind}: {type(failure).__name__}: {one_line(failure)}; take "
            "another format"
        ) from failure
    if not error <= TOLERANCE:
        raise VerificationError(
            f"the network as {kind} differs from PyTorch by {error:.1e} of the largest output, at most {TOLERANCE:.0e} "
            "is allowed, so nothing was kept; take another format"
        )
    size = next((len(tensor) for tensor in inputs.tensors if tensor.ndim), 1)
    return Exported(kind, written.files, error, size, written.details)


def _others(inputs: Inputs) -> list[Inputs]:
    return [found for size in SIZES if (found := items(inputs, size)) is not None]


def _is_blind(model: nn.Module, inputs: Inputs) -> bool:
    """Whether the network gives nearly the same for quite other inputs; unknown where these are no floats."""
    other = inputs.map(lambda tensor: -tensor if tensor.is_floating_point() else tensor)
    differs = any(tensor.is_floating_point() and bool(tensor.any()) for tensor in inputs.tensors)
    if not differs or not other.runs(model):
        return False
    with undisturbed(model):
        return difference(inputs.clone().call(model), other.call(model)) < TOLERANCE


def _error(form: Format, model: nn.Module, path: Path, calls: list[Inputs]) -> float:
    with undisturbed(model):
        expected = [inputs.clone().call(model) for inputs in calls]
        given = [inputs.map(lambda tensor: tensor.detach().clone().contiguous()) for inputs in calls]
        return max(map(difference, expected, form.outputs(path, given)))
