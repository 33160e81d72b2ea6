"""`nasprune compress`: a network that a search saved, in as few bytes as its zeros and shared values allow."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.cli.runs import small_network
from nasprune.cli.screen import answer, printed, say, stdout, table
from nasprune.common.words import python

if TYPE_CHECKING:
    from nasprune.codec.sizes import Sizes

FILE = "compressed.safetensors"
"""Inside the folder of the run."""
HEAD = ("weight", "weights", "not zero", "fillers", "values", "bytes", "bits a weight")


@dataclass(frozen=True)
class CompressOptions:
    """The options of the command, as typed."""

    run: Path
    bits: int | None
    gap_bits: int | None
    model: str | None
    input_size: str | None
    plugins: tuple[Path, ...]
    out: Path | None


def run(options: CompressOptions) -> None:
    """Loads, writes and prints."""
    from nasprune.codec.compressed import compress
    from nasprune.common.untouched import undisturbed
    from nasprune.deploy.difference import difference

    small, inputs, _ = small_network(options.run, options.model, options.input_size, options.plugins)
    out = options.out or options.run / FILE
    say(f"writing the network in {options.run} with shared values, gaps and Huffman codes")
    done = compress(small, out, bits=options.bits, gap_bits=options.gap_bits)
    with undisturbed(small.eval()), undisturbed(done.model):
        change = difference(inputs.clone().call(small), inputs.clone().call(done.model))
    record = {"file": str(done.path), "change": change, "error": done.error, **size_record(done.sizes)}
    answer(record)
    show_sizes(done.sizes)
    printed(
        stdout(),
        f"change   {change:.1e} of the largest output, on noise; {done.error:.1e} of the weights",
        f"file     {done.path}",
        "",
        "Its weights again:",
        f"  net = nasprune.decompress({python(str(done.path))}, model=small)  # small: as nasprune.load gives it",
    )


def size_record(sizes: Sizes) -> dict[str, object]:
    """Sizes in plain values."""
    layers = [{**asdict(layer), "bits_per_weight": layer.bits_per_weight} for layer in sizes.layers]
    return {**asdict(sizes), "ratio": sizes.ratio, "layers": layers}


def show_sizes(sizes: Sizes) -> None:
    """A line for every weight, and the whole."""
    rows = [
        (
            layer.name,
            *(f"{each:,}" for each in (layer.weights, layer.nonzeros, layer.fillers, layer.values, layer.bytes)),
            f"{layer.bits_per_weight:.2f}",
        )
        for layer in sizes.layers
    ]
    stdout().print(table(HEAD, rows, right=tuple(range(1, len(HEAD)))))
    printed(
        stdout(),
        f"bytes    {sizes.dense:,} as tensors, {sizes.file:,} in the file: {sizes.ratio:.1f} times smaller",
    )
