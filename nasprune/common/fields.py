"""Values out of a JSON text that anyone may have written: typed, bounded, and named where they are wrong.

A text is parsed by `parse`; every value that is used is asked for by type, so that nothing is built from what was not
looked at, and whatever is wrong is one error that names the file and the field.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nasprune.errors import InputError

LARGEST = 2**26
"""Bytes of the largest text that is read."""
DIGITS = 40
"""Of the longest number that is read; no quantity here needs half as many."""
WORDS = 10_000
"""Characters of the longest string that is read."""
ITEMS = 2**22
"""Of the longest list or mapping."""
WHOLE = 2**63 - 1


@dataclass(frozen=True)
class Source:
    """Where a text comes from. name: of the file, with quotes. what: it should be. then: what to do where it is not."""

    name: str
    what: str
    then: str
    error: type[InputError] = field(default=InputError)

    def wrong(self, reason: str) -> InputError:
        """The one error for whatever is wrong."""
        return self.error(f"{self.name} is damaged, it is not {self.what}: {reason}; {self.then}")


@dataclass(frozen=True)
class Field:
    """One value and the way to it, such as `inputs[0].shape`. Every method raises `source.error` naming both."""

    source: Source
    value: Any
    path: str = ""

    def wrong(self, expected: str) -> InputError:
        """What to raise where the value is not what is expected."""
        where = f"`{_clean(self.path)}`" if self.path else "the whole"
        return self.source.wrong(f"{where}: expected {expected}, got {shown(self.value)}")

    def parts(self, *required: str, optional: Iterable[str] = ()) -> dict[str, Field]:
        """The members of a record: all the required ones, and of others none but the optional ones."""
        known = self.members()
        for name in required:
            if name not in known:
                raise self.source.wrong(f"`{_clean(self._at(name))}` is not there")
        for name in known:
            if name not in {*required, *optional}:
                raise self.source.wrong(f"`{_clean(self._at(name))}` is not known")
        return known

    def members(self) -> dict[str, Field]:
        """The members of a mapping with any names."""
        if not isinstance(self.value, dict) or len(self.value) > ITEMS:
            raise self.wrong("a mapping")
        return {
            Field(self.source, name, f"{self.path} (a name)").text(): Field(self.source, value, self._at(name))
            for name, value in self.value.items()
        }

    def items(self, most: int = ITEMS) -> list[Field]:
        """The items of a list."""
        if not isinstance(self.value, list) or len(self.value) > most:
            raise self.wrong(f"a list of at most {most:,} items")
        return [Field(self.source, item, f"{self.path}[{index}]") for index, item in enumerate(self.value)]

    def text(self, most: int = WORDS) -> str:
        """A string."""
        if not isinstance(self.value, str) or len(self.value) > most:
            raise self.wrong(f"text of at most {most:,} characters")
        return self.value

    def whole(self, low: int = 0, high: int = WHOLE) -> int:
        """A whole number from `low` to `high`, both included."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not low <= self.value <= high:
            raise self.wrong(f"a whole number from {low:,} to {high:,}")
        return self.value

    def number(self, low: float = -math.inf) -> float:
        """A finite number, not below `low`."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < low:
            raise self.wrong("a finite number" + (f" from {low:g}" if low > -math.inf else ""))
        return float(value)

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    @property
    def absent(self) -> bool:
        """Whether the value is null."""
        return self.value is None

    def texts(self, most: int = ITEMS) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(item.text() for item in self.items(most))

    def wholes(self, low: int = 0, high: int = WHOLE, most: int = ITEMS) -> tuple[int, ...]:
        """A list of whole numbers."""
        return tuple(item.whole(low, high) for item in self.items(most))

    def words(self) -> dict[str, str]:
        """A mapping to strings."""
        return {name: value.text() for name, value in self.members().items()}

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def parse(content: bytes | str, source: Source) -> Field:
    """The value of a JSON text in UTF-8.

    Raises:
        InputError (as `source.error`): the text is no JSON, has a member twice, a number without measure, or is too
        long or nested too deeply.
    """
    if len(content) > LARGEST:
        raise source.wrong(f"expected at most {LARGEST:,} bytes, got {len(content):,}")
    try:
        text = content.decode() if isinstance(content, bytes) else content
        return Field(source, json.loads(text, object_pairs_hook=_unique, parse_int=_whole))
    except UnicodeDecodeError as error:
        raise source.wrong(f"it is no UTF-8 text ({error.reason} at byte {error.start})") from error
    except RecursionError as error:
        raise source.wrong("it is nested too deeply") from error
    except ValueError as error:
        raise source.wrong(_clean(str(error))) from error


def shown(value: object) -> str:
    """A value for a message: short, on one line, without control characters."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # a whole number of thousands of digits
        return f"a {type(value).__name__} too long to show"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"{shown(twice)} is there twice")
    return found


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _clean(text: str) -> str:
    return text if text.isprintable() and len(text) < 200 else shown(text)


def _short() -> reprlib.Repr:
    made = reprlib.Repr()
    made.maxlevel, made.maxstring, made.maxother, made.maxlong = 3, 100, 100, 60
    return made


_SHORT = _short()
