"""Reading what others wrote: Python literals without running Python, and values checked one by one."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from nasprune.common.fields import shown
from nasprune.errors import InputError

LONGEST = 20_000
"""Characters of the longest text that is read."""
NAME = 200
"""Of the longest name."""
BITS = 64
"""Of the longest whole number that is read."""


def expression(text: str) -> Any:
    """The value of a genotype's text: literals, `range` of numbers, one call around them, `NAME =` before them.

    Returns:
        The literal; for a call its arguments, a dict where they are named and a list where they are not.

    Raises:
        InputError: the text is anything else; nothing of it is run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings
            body = ast.parse(bounded(text).strip()).body
        if len(body) != 1 or not isinstance(body[0], ast.Expr | ast.Assign) or body[0].value is None:
            raise ValueError("one expression is expected")
        node = body[0].value
        if not isinstance(node, ast.Call):
            return _value(node)
        if not ast.unparse(node.func).lower().endswith("genotype"):
            raise ValueError("the call is of something else")
        named = {keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg is not None}
        if len(named) < len(node.keywords) or (named and node.args):
            raise ValueError("parts are named or not, all of them")
        return named or [_value(argument) for argument in node.args]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise InputError(
            f"expected Genotype(normal=[(op, input), ...], normal_concat=..., ...) of plain values, got {shown(text)}"
        ) from error


def _value(node: ast.expr) -> Any:
    """A literal, a `range` of literals, or such a range in `list` or `tuple`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id in ("list", "tuple") and len(node.args) == 1:
            return _value(node.args[0])
        if node.func.id == "range":
            return range(*(ast.literal_eval(argument) for argument in node.args))
    return ast.literal_eval(node)


def numbers(value: Any, what: str) -> tuple[int, ...]:
    """Small whole numbers from any iterable of them.

    Raises:
        InputError: these are something else, naming `what` they were for.
    """
    if isinstance(value, range) and value[100:]:
        raise InputError(f"expected a few numbers for `{what}`, got {shown(value)}")
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise InputError(f"expected numbers for `{what}`, got {shown(value)}")
    return tuple(number(item, what) for item in value)


def number(value: Any, what: str) -> int:
    """A whole number from 0 to 999, or InputError."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or not 0 <= int(value) < 1000:
        raise InputError(f"expected a whole number from 0 to 999 in `{what}`, got {shown(value)}")
    return int(value)


def word(value: Any, what: Any) -> str:
    """A name as operations have, or InputError."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][\w.]*", value):
        raise InputError(f"expected the name of an operation in `{what}`, got {shown(value)}")
    return value


def plain(value: Any, what: str) -> Any:
    """The value itself, if it is made of what genotypes are made of: few values, and no name or number without measure.

    Raises:
        InputError: it holds more than LONGEST values, counted as often as they are met, or a very long name or number.
    """
    waiting, met = [value], 0
    while waiting:
        one = waiting.pop()
        met += 1
        long = isinstance(one, str) and len(one) > NAME
        if met > LONGEST or long or (isinstance(one, int) and one.bit_length() > BITS):
            raise InputError(f"expected {what} of few, short values, got {shown(value)}")
        if isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple):
            waiting += one
    return value


def bounded(text: str) -> str:
    """The text itself, or InputError where it is too long to be a genotype."""
    if len(text) > LONGEST:
        raise InputError(f"expected the text of a genotype, got {len(text)} characters")
    return text
