"""The program with all its commands; each is in `commands`, and what it does in a file of its own."""

from __future__ import annotations

from functools import cache
from typing import Annotated

import typer
from typer.core import TyperGroup
from typer.main import get_command

from nasprune.cli.commands import channels as channels
from nasprune.cli.commands import results as results
from nasprune.cli.commands import supernets as supernets
from nasprune.cli.options import app as app


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from nasprune import __version__

        typer.echo(__version__)


@cache
def program() -> TyperGroup:
    """The commands and their options, made once in a process: that takes longer than many an answer."""
    made = get_command(app)
    assert isinstance(made, TyperGroup)
    return made
