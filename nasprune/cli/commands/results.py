"""Commands about what a search has found, and about what there is to search with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nasprune.cli.options import AsJson, Config, DenseModel, InputSize, Plugins, Quiet, Verbose, app
from nasprune.cli.screen import speak

Run = Annotated[Path, typer.Argument(help="A folder that `nasprune search` or `finetune` wrote.", show_default=False)]


@app.command()
def show(run: Run, as_json: AsJson = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Print the result of a run again, or those of a sweep side by side."""
    from nasprune.cli.show import run as start

    speak(as_json=as_json, quiet=quiet, verbose=verbose)
    start(run)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders that `nasprune search` wrote.", show_default=False)],
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Print several runs side by side: cost, score, accuracy."""
    from nasprune.cli.compare import run as start

    speak(as_json=as_json, quiet=quiet, verbose=verbose)
    start(tuple(runs))


@app.command(short_help="Write a found network in a format that other programs read.")
def export(
    run: Run,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="onnx, pt2, torchscript, module, openvino, executorch or timm.",
            show_default="as --out ends, else onnx",
        ),
    ] = None,
    model: DenseModel = None,
    input_size: InputSize = None,
    plugins: Plugins = None,
    out: Annotated[Path | None, typer.Option("--out", help="The file.", show_default="RUN/export/model.SUFFIX")] = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a found network in a format that other programs read, and check what it gives there."""
    from nasprune.cli.export import ExportOptions
    from nasprune.cli.export import run as start

    speak(as_json=as_json, quiet=quiet, verbose=verbose)
    start(ExportOptions(run, format, model, input_size, tuple(plugins or ()), out))


@app.command(short_help="Write a found network in as few bytes as its zeros allow.")
def compress(
    run: Run,
    bits: Annotated[
        int | None,
        typer.Option("--bits", help="Of a weight's number among shared values.", show_default="8, of matrices 5"),
    ] = None,
    gap_bits: Annotated[
        int | None, typer.Option("--gap-bits", help="Of the zeros between two values.", show_default="8, of matrices 5")
    ] = None,
    model: DenseModel = None,
    input_size: InputSize = None,
    plugins: Plugins = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file.", show_default="RUN/compressed.safetensors")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a found network in as few bytes as its zeros allow, and say how many each weight takes."""
    from nasprune.cli.compress import CompressOptions
    from nasprune.cli.compress import run as start

    speak(as_json=as_json, quiet=quiet, verbose=verbose)
    start(CompressOptions(run, bits, gap_bits, model, input_size, tuple(plugins or ()), out))


@app.command(short_help="Write a found network as ONNX in 8-bit integers.")
def quantise(
    run: Run,
    data: Annotated[
        str,
        typer.Option("--data", help="digits, pointclouds, cifar10:DIR, mnist:DIR, imagefolder:DIR, module:factory."),
    ],
    model: DenseModel = None,
    input_size: InputSize = None,
    plugins: Plugins = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file.", show_default="RUN/export/model-int8.onnx")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a found network as ONNX in 8-bit integers, and say what that saves and costs."""
    from nasprune.cli.quantise import QuantiseOptions
    from nasprune.cli.quantise import run as start

    speak(as_json=as_json, quiet=quiet, verbose=verbose)
    start(QuantiseOptions(run, data, model, input_size, tuple(plugins or ()), out))


@app.command("list", short_help="List criteria, controllers, evaluators, spaces and other plugins.")
def list_plugins(
    plugins: Plugins = None,
    check: Annotated[bool, typer.Option("--check", help="Import every one and say which fail.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List criteria, controllers, evaluators, scorers of operations, op rules and spaces, and where each comes from."""
    from nasprune.cli.listing import run

    speak(as_json=as_json, quiet=quiet, verbose=verbose)
    raise typer.Exit(run(tuple(plugins or ()), check=check))
