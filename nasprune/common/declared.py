"""The kinds of values that the parameters of a function declare, and whether a value is of one."""

from __future__ import annotations

import collections.abc as abc
import inspect
import sys
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nasprune.common.arguments import described
from nasprune.errors import InputError

WORDS: Mapping[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    NoneType: "None",
    None: "None",
}
LISTS = (list, tuple, set, frozenset)
PLAIN = (bool, int, float, str)


def check_declared(name: str, make: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raises InputError where an option is of another kind than the parameter of `make` that takes it declares.

    Kinds are numbers, texts, truth values, `None`, literals, lists and dicts of these, and unions; a parameter that
    declares nothing, or something else, takes every value.

    Args:
        name: what `make` is called, for messages. make: a class or function.
        options: those given to it, by name.
    """
    declared = {option: hint for option, hint in _declared(make).items() if option in options}
    for option, hint in declared.items():
        if not fits(options[option], hint):
            raise InputError(
                f"`{name}` option `{option}` must be {in_words(hint)}, got {described(options[option])}; "
                f"{_instead(name, option, inspect.signature(make).parameters[option].default)}"
            )


def fits(value: object, hint: Any) -> bool:
    """Whether the value is of the kind that an annotation declares; every value is of one that is not known here.

    >>> fits(3, int | None), fits("3", int | None), fits(True, int), fits([1, 2], tuple[int, ...])
    (True, False, False, True)
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if hint in (None, NoneType):
        return value is None
    if hint is bool or hint is str:
        return isinstance(value, hint)
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    kind = origin or hint
    if kind in (dict, abc.Mapping, abc.MutableMapping):
        of_key, of_value = inner or (Any, Any)
        return isinstance(value, Mapping) and all(fits(k, of_key) and fits(v, of_value) for k, v in value.items())
    if kind in (*LISTS, abc.Sequence, abc.Iterable, abc.Collection, abc.Set):
        return _fits_list(value, kind, inner)
    return True


def in_words(hint: Any) -> str:
    """What an annotation declares.

    >>> in_words(int | None), in_words(Literal["a", "b"]), in_words(list[float])
    ('a whole number or None', "'a' or 'b'", 'a list, each item a number')
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(in_words, inner)))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    kind = origin or hint
    if kind in (dict, abc.Mapping, abc.MutableMapping):
        return "a dict"
    if kind in (*LISTS, abc.Sequence, abc.Iterable, abc.Collection, abc.Set):
        each = inner[0] if inner and _is_known(inner[0]) else None
        fixed = kind is tuple and inner and ... not in inner
        return f"a list of {len(inner)}" if fixed else "a list" + (f", each item {in_words(each)}" if each else "")
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _fits_list(value: object, kind: Any, inner: tuple[Any, ...]) -> bool:
    if isinstance(value, str):  # a sequence of texts too, but no list
        return kind not in LISTS and (not inner or fits("", inner[0]))
    if not isinstance(value, LISTS):
        return kind not in LISTS and isinstance(value, kind)
    if kind is tuple and inner and ... not in inner:
        return len(value) == len(inner) and all(map(fits, value, inner))
    return not inner or all(fits(item, inner[0]) for item in value)


def _declared(make: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of all parameters that have one and whose names are known where they stand."""
    function: Any = make.__init__ if inspect.isclass(make) else inspect.unwrap(make)
    known = getattr(function, "__globals__", None) or vars(sys.modules.get(make.__module__, sys))
    found = {}
    for name, parameter in inspect.signature(make).parameters.items():
        if parameter.annotation is not parameter.empty:
            try:
                found[name] = _resolved(parameter.annotation, known)
            except Exception:  # whatever a name that is imported for type checkers alone raises
                continue
    return found


def _resolved(annotation: object, known: Mapping[str, Any]) -> Any:
    """An annotation that may be written as a text."""

    def holder() -> None: ...

    holder.__annotations__ = {"value": annotation}
    return get_type_hints(holder, dict(known))["value"]


def _is_known(hint: Any) -> bool:
    return hint in WORDS or get_origin(hint) in (Union, UnionType, Literal)


def _instead(name: str, option: str, default: object) -> str:
    plain = isinstance(default, PLAIN) and default != ""
    return f"write for example {name}({option}={default})" if plain else "give another value"
