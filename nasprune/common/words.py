"""Text for people and for programs: without control characters, as a Python literal, as a word of a shell."""

from __future__ import annotations

import os
import shlex

SURROGATES = range(0xDC80, 0xDD00)
"""How Python holds the bytes of a name that is no UTF-8."""


def visible(text: str) -> str:
    """The text on one line, with whatever does not print written out, such as `\\x1b` and `\\n`."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def python(text: str) -> str:
    """A Python literal of the text, in double quotes where it holds none."""
    literal = repr(text)
    return literal if '"' in text or not literal.startswith("'") else f'"{literal[1:-1]}"'


def shell(text: str) -> str:
    """One word of a command line, for bash, zsh and their like."""
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_byte_by_byte(c) for c in text) + "'"


def shell_path(path: str | os.PathLike[str]) -> str:
    """`shell` of a path, which no command takes for an option."""
    text = os.fspath(path)
    return shell(f"./{text}" if text.startswith("-") else text)


def _escaped(character: str) -> str:
    if ord(character) in SURROGATES:
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def _byte_by_byte(character: str) -> str:
    if character.isprintable() and character not in "\\'":
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
