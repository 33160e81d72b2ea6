"""`--config FILE`: the options of a command from a TOML file, and the file that a run writes to be repeated from.

Keys are the options without their dashes. What is typed goes before the file, and the file before defaults.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import typer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FILE = "run.toml"
"""In the folder of a run."""
LARGEST = 2**20
BEGINNING = "# The options of this run. Repeat it: nasprune "
THEN = "give a file of options such as budget = '60%'"
NO_OPTIONS = frozenset({"config", "help"})
JSON = "as_json"
"""The parameter whose option is `--json`."""
WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    list: "a list of texts",
}


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Takes the options in the file as defaults of the command at hand. A callback of the option `--config`.

    Raises:
        InputError: the file cannot be read, is no TOML, or gives an option another kind of value than it takes.
        UnknownNameError: the command has no such option; the nearest are named.
    """
    if path is not None:
        given = _options_in(path)
        known = _kinds(context)
        context.default_map = {name: _checked(path, key, value, known) for name, (key, value) in given.items()}
    return path


def written(command: str, options: DataclassInstance, resolved: Mapping[str, object]) -> str:
    """The options as a TOML file that gives the same run. resolved: in the place of options that left a choice."""
    lines = [f"{BEGINNING}{command} --config FILE"]
    for field in fields(options):
        value = resolved.get(field.name, getattr(options, field.name))
        if value is None or value == ():
            continue
        text = _toml(value)
        key = field.name.replace("_", "-")
        lines.append(f"{key} = {text}" if text.isprintable() else f"# {key}: a name that TOML cannot hold")
    return "\n".join(lines) + "\n"


def keep(folder: Path, command: str, options: DataclassInstance, resolved: Mapping[str, object]) -> None:
    """Writes the options into the folder of the run, unless a file of the user's own has that name there."""
    from nasprune.cli.screen import say
    from nasprune.common.files import write_all

    path = folder / FILE
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(BEGINNING)) != BEGINNING.encode():
                say(f"note: {path} is yours and stays as it is; the options of this run are not written")
                return
    write_all(folder, {FILE: written(command, options, resolved).encode()})


def _options_in(path: Path) -> dict[str, tuple[str, Any]]:
    """Parameter -> the key as it stands in the file, and the value."""
    import tomllib

    from nasprune.common.files import content_of
    from nasprune.errors import InputError

    content = content_of(path, "the configuration", THEN, most=LARGEST)
    try:
        record = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"the configuration {str(path)!r} is no TOML: {error}; {THEN}") from error
    return {_parameter(key): (key, value) for key, value in record.items()}


def _checked(path: Path, key: str, value: Any, known: Mapping[str, type]) -> Any:
    """The value of an option that the command has, of the kind that it takes."""
    from nasprune.common.fields import shown
    from nasprune.errors import InputError, UnknownNameError

    kind = known.get(_parameter(key))
    if kind is None:
        names = ["json" if name == JSON else name.replace("_", "-") for name in known]
        raise UnknownNameError(f"option in {str(path)!r}", key, names)
    fits = type(value) is kind or (kind is float and type(value) is int)
    if kind is list and isinstance(value, list):
        fits = all(isinstance(item, str) for item in value)
    if not fits:
        raise InputError(f"{key!r} in {str(path)!r} must be {WORDS[kind]}, got {shown(value)}; {THEN}")
    return value


def _parameter(key: str) -> str:
    return JSON if key == "json" else key.replace("-", "_")


def _kinds(context: typer.Context) -> dict[str, type]:
    """Parameter of the command at hand -> the kind of its value in a file; paths are texts."""
    function = inspect.unwrap(context.command.callback) if context.command.callback is not None else read_config
    hints = get_type_hints(function)
    return {name: _kind(hints[name]) for name in inspect.signature(function).parameters if name not in NO_OPTIONS}


def _kind(hint: Any) -> type:
    parts = [part for part in get_args(hint) if part is not type(None)] if get_origin(hint) is UnionType else [hint]
    kind = get_origin(parts[0]) or parts[0]
    return kind if kind in WORDS else str


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
