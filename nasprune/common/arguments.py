"""What the user handed over, in words, and errors that say what was expected in its place."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from torch import Tensor

from nasprune.errors import InputError


def described(value: object) -> str:
    """A value in a few words: "the class Net", "a tensor of shape (3, 4)", "the str 'abc'"."""
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__name__', '')!r}"
    if value is None:
        return "None"
    if isinstance(value, str | bytes | bool | int | float | Path):
        text = repr(str(value) if isinstance(value, Path) else value)
        return f"the {type(value).__name__} {text if len(text) <= 60 else f'{text[:60]}…'}"
    return f"a {type(value).__name__}"


def refused(argument: str, wanted: str, value: object, instead: str) -> InputError:
    """What to raise where `argument` holds something else than `wanted`; `instead` is the next step."""
    return InputError(f"`{argument}` must be {wanted}, got {described(value)}; {instead}")


def whole_number(argument: str, value: Any, instead: str) -> None:
    """Raises InputError unless `value` is a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise refused(argument, "a whole number", value, instead)


def number(argument: str, value: Any, instead: str) -> None:
    """Raises InputError unless `value` is a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refused(argument, "a number", value, instead)


def path(argument: str, value: object, instead: str) -> Path:
    """`value` as a path. Raises InputError where it is none."""
    if not isinstance(value, str | Path) or not str(value):
        raise refused(argument, "a path", value, instead)
    return Path(value)


def names(argument: str, value: object) -> tuple[str, ...]:
    """One name or several as a tuple. Raises InputError for anything else."""
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, tuple | list | set) else None
    if found is None or not all(isinstance(name, str) for name in found):
        raise refused(argument, "a name or a list of names", value, "give for example ['layer1*', 'fc']")
    return found
