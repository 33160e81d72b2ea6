"""The options that several commands share, and the program that commands belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nasprune.cli.config import read_config

app = typer.Typer(
    name="nasprune",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Structured pruning of PyTorch models: a budget in, a smaller network out.",
)

MODEL = typer.Option(
    "--model", help="torchvision:NAME, timm:NAME, file.py:factory or package.module:factory.", show_default=True
)
WEIGHTS = typer.Option("--weights", help="A safetensors or torch file, or `default` for the library's own.")
INPUT_SIZE = typer.Option("--input-size", help="224, 160x192, or in full 3x224x224; else what the model says.")
SCOPE = typer.Option("--scope", help="Cut only this submodule, such as `backbone` of a detector.")
SUPERNETS = "darts, nasbench201, file.py:factory or package.module:factory of your own supernet"
PLUGINS = typer.Option("--plugins", help="A folder of your own plugin files; may be given several times.")


def group_of(parent: typer.Typer, name: str, text: str) -> typer.Typer:
    """A new group of commands below `parent`."""
    made = typer.Typer(no_args_is_help=True, help=text)
    parent.add_typer(made, name=name)
    return made


Model = Annotated[str, MODEL]
DenseModel = Annotated[
    str | None, typer.Option("--model", help="The dense model, where it is your own: file.py:factory.")
]
Weights = Annotated[str | None, WEIGHTS]
InputSize = Annotated[str | None, INPUT_SIZE]
Scope = Annotated[str | None, SCOPE]
Plugins = Annotated[list[Path] | None, PLUGINS]
SupernetData = Annotated[
    str | None,
    typer.Option("--data", help="digits, pointclouds, cifar10:DIR, mnist:DIR, imagefolder:DIR, module:factory."),
]
ImageSide = Annotated[
    int | None,
    typer.Option(
        "--input-size", help="Pixels of a side that images of a folder get; else as your supernet says, or 224."
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")]
Device = Annotated[str, typer.Option("--device", help="For training: auto, cpu or cuda.")]
Log = Annotated[
    list[str] | None,
    typer.Option(
        "--log", help="Write trials and trainings to csv:DIR, tensorboard:DIR, mlflow[:URI] or wandb[:PROJECT]."
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", callback=read_config, is_eager=True, help="A TOML file of options, such as RUN/run.toml of a run."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Time and memory at every line, what is logged, where an error came from.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no notes while it runs.")]
