"""Names with options, as typed: `lp(p=1, reduce=max)`."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import Any

from nasprune.common.fields import shown
from nasprune.errors import InputError

LONGEST = 10_000
"""Characters of the longest name with options that is read."""
BARE_WORD = re.compile(r"=\s*([A-Za-z_]\w*)\s*(?=[,)])")


@dataclass(frozen=True)
class Named:
    """A name and the options that were written behind it."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


def parse_named(text: str) -> Named:
    """The parts of `NAME` or `NAME(option=value, …)`; values are Python literals or bare words, which are strings.

    Raises:
        InputError: the text has another form, or an option is given twice.
    """
    refused = InputError(f"expected NAME or NAME(option=value, ...) with numbers, words or lists, got {shown(text)}")
    if len(text) > LONGEST:
        raise refused
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return Named(name)
    try:
        call = ast.parse(f"f({BARE_WORD.sub(_quoted, rest)}", mode="eval").body
        given = call.keywords if isinstance(call, ast.Call) else []
        options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in given if keyword.arg is not None}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise refused from error
    plain = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args
    if not plain or not name.strip() or len(options) < len(given):
        raise refused
    return Named(name.strip(), options)


def _quoted(match: re.Match[str]) -> str:
    word = match[1]
    return match[0] if word in ("True", "False", "None") else f"={word!r}"
