"""`nasprune quantise`: a network that a search saved, as ONNX in 8-bit integers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.cli.runs import small_network
from nasprune.cli.screen import SearchScreen, answer, printed, say, stdout, table
from nasprune.common.words import python

if TYPE_CHECKING:
    from nasprune.deploy.quantise import Quantised, Side

FILE = "export/model-int8.onnx"
"""Inside the folder of the run."""


@dataclass(frozen=True)
class QuantiseOptions:
    """The options of the command, as typed."""

    run: Path
    data: str
    model: str | None
    input_size: str | None
    plugins: tuple[Path, ...]
    out: Path | None


def run(options: QuantiseOptions) -> None:
    """Loads, writes, compares and prints."""
    from nasprune.deploy.formats import check_format
    from nasprune.deploy.quantise import quantise

    check_format("onnx")
    small, inputs, _ = small_network(options.run, options.model, options.input_size, options.plugins)
    out = options.out or options.run / FILE
    say(f"writing the network in {options.run} in 8-bit integers, then running it on the test images of {options.data}")
    with SearchScreen(None).shown() as screen:
        done = quantise(small, inputs, out, options.data, on_phase=screen.phase)
    answer({**asdict(done), "file": str(done.file)})
    _show(done)


def _show(done: Quantised) -> None:
    def row(name: str, side: Side) -> tuple[str, ...]:
        right = "" if side.accuracy is None else f"{side.accuracy:.1%}"
        return name, f"{side.bytes / 1e6:.2f}", f"{side.milliseconds:.2f}", right

    tested, used = done.images
    rows = [row("floating point", done.before), row("8-bit integers", done.after)]
    stdout().print(table(("in onnxruntime", "MB", "ms", "test accuracy"), rows, right=(1, 2, 3)))
    printed(
        stdout(),
        f"change   {done.change:.1%} of the outputs, root mean square, on {tested:,} test images",
        *([f"answers  {done.agreement:.1%} of them get the same one"] if done.agreement is not None else []),
        f"ranges   of activations on {used:,} calibration images",
        f"file     {done.file}",
        "",
        "Run it:",
        "  import onnxruntime",
        f"  session = onnxruntime.InferenceSession({python(str(done.file))})",
    )
