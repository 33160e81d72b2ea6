"""Frozen dataclasses read back from JSON by their own annotations, every value checked.

What `dataclasses.asdict` wrote, `record_of` reads: whole numbers that are not negative, finite numbers, strings, flags,
`Literal`s, `... | None`, other dataclasses, `tuple[X, ...]` and `Mapping[str, X]` of these. Members with a default may
be absent; unknown ones are refused.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from nasprune.common.fields import Field
from nasprune.errors import NaspruneError

T = TypeVar("T")


def record_of(kind: type[T], found: Field) -> T:
    """The dataclass `kind` made of a mapping.

    Raises:
        InputError (as `found.source.error`): a member is missing, unknown or of another type, or `kind` refuses it.
    """
    hints, own = get_type_hints(kind), [one for one in fields(kind) if one.init]  # type: ignore[arg-type]
    bare = [one.name for one in own if one.default is MISSING and one.default_factory is MISSING]
    parts = found.parts(*bare, optional=[one.name for one in own])
    values = {name: _value(hints[name], part) for name, part in parts.items()}
    try:
        return kind(**values)
    except NaspruneError as error:
        raise found.source.wrong(str(error)) from error


def _value(hint: Any, found: Field) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if found.absent and type(None) in inner:
            return None
        return _value(next(one for one in inner if one is not type(None)), found)
    if origin is Literal:
        if found.text() not in inner:
            raise found.wrong(f"one of {', '.join(map(str, inner))}")
        return found.value
    if origin is tuple:
        return tuple(_value(inner[0], item) for item in found.items())
    if origin is Mapping:
        return {name: _value(inner[1], value) for name, value in found.members().items()}
    if is_dataclass(hint):
        return record_of(hint, found)  # type: ignore[arg-type]
    return _PLAIN[hint](found)


_PLAIN: Mapping[Any, Callable[[Field], Any]] = {
    bool: Field.flag,
    int: Field.whole,
    float: Field.number,
    str: Field.text,
}
