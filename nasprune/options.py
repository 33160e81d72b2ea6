"""Names with options, as typed: `lp(p=1, reduce=max)`."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

from nasprune.errors import InputError


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
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return Named(name)
    refused = InputError(f"expected NAME or NAME(option=value, ...) with numbers, words or lists, got {text!r}")
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args or not name.strip():
            raise refused
        return Named(name.strip(), {_key(keyword, refused): _value(keyword.value) for keyword in call.keywords})
    except (SyntaxError, ValueError) as error:
        raise refused from error


def _key(keyword: ast.keyword, refused: InputError) -> str:
    if keyword.arg is None:
        raise refused
    return keyword.arg


def _value(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)
