"""`nasprune export`: a network that a search saved, in a format that other programs read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.cli.runs import small_network
from nasprune.cli.screen import answer, printed, say, stdout
from nasprune.common.words import python

if TYPE_CHECKING:
    from nasprune.deploy.export import Exported

FOLDER = "export"
"""Inside the folder of the run."""


@dataclass(frozen=True)
class ExportOptions:
    """The options of the command, as typed."""

    run: Path
    format: str | None
    model: str | None
    input_size: str | None
    plugins: tuple[Path, ...]
    out: Path | None


def run(options: ExportOptions) -> None:
    """Checks, loads, writes, compares and prints. Cheap mistakes are found before anything is loaded."""
    from nasprune.deploy.export import export
    from nasprune.deploy.formats import FORMATS, check_format, format_of

    if options.out is None:
        kind = options.format or "onnx"
        check_format(kind)
        out = options.run / FOLDER / f"model{FORMATS[kind].suffix}"
    else:
        out, kind = options.out, format_of(options.format, options.out)
    small, inputs, name = small_network(options.run, options.model, options.input_size, options.plugins)
    say(f"writing the network in {options.run} as {kind}, then running what was written")
    done = export(small, inputs, out, format=kind, title=f"{name}, as cut by nasprune")
    answer({**asdict(done), "files": [str(file) for file in done.files]})
    _show(done)


def _show(done: Exported) -> None:
    first = str(done.files[0])
    printed(
        stdout(),
        f"format   {done}",
        f"files    {', '.join(map(str, done.files))}",
        *([f"note     {done.note}"] if done.note else []),
        "",
        "Run it:",
        *(f"  {line}" for line in _running_lines(done.format, first)),
    )


def _running_lines(kind: str, path: str) -> list[str]:
    """The lines of Python that open the file."""
    if kind == "onnx":
        return ["import onnxruntime", f"session = onnxruntime.InferenceSession({python(path)})"]
    if kind == "pt2":
        return ["import torch", f"net = torch.export.load({python(path)}).module()"]
    if kind == "torchscript":
        return ["import torch", f"net = torch.jit.load({python(path)})"]
    if kind == "openvino":
        return ["import openvino", f'net = openvino.Core().compile_model({python(path)}, "CPU")']
    if kind == "executorch":
        return [
            "from executorch.runtime import Runtime",
            f'net = Runtime.get().load_program({python(path)}).load_method("forward")',
        ]
    place = Path(path)
    if kind == "timm":
        return [
            "import pathlib, safetensors.torch, timm, timm.models",
            "dense = timm.create_model(NAME)  # the architecture that stands in the .json",
            f"net = timm.models.adapt_model_from_string(dense, pathlib.Path({python(path)}).read_text())",
            f"net.load_state_dict(safetensors.torch.load_file({python(str(place.with_suffix('.safetensors')))}))",
        ]
    return [f"from {place.stem} import load  # in the folder {place.parent}", "net = load()"]
