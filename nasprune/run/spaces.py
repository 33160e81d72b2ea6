"""What the name of a space says: structure, zeros inside of weights, or both, as in "widths+weights(pattern='2:4')"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nasprune.common import arguments
from nasprune.common.options import parse_named
from nasprune.cost.budget import Budget
from nasprune.errors import InputError, UnknownNameError
from nasprune.registry import Plugins, with_options
from nasprune.run.methods import Names
from nasprune.sparse.contract import Sparsifier
from nasprune.sparse.patterns import Pattern
from nasprune.sparse.sparsify import ZeroSpace

WIDTHS = "widths"
DEFAULT = "obs"
"""The sparsifier: the best of those here in `make bench-sparse`."""
PATTERNS = {"weights": "unstructured", "kernels": "kernel"}
"""Spaces of zeros, and their patterns where none is given."""
OPTIONS = ("pattern", "spread", "include", "exclude")


@dataclass(frozen=True)
class Spaces:
    """structure: the name of a search space, `None` for none. zeros: where zeros may come, `None` for nowhere."""

    structure: str | None = WIDTHS
    zeros: ZeroSpace | None = None

    @property
    def both(self) -> bool:
        return self.structure is not None and self.zeros is not None


def spaces_of(name: str, budget: Budget, spared: Mapping[str, object]) -> Spaces:
    """The spaces that `name` stands for; "auto" is what the budget needs.

    Args:
        spared: the search's `include` and `exclude`, which hold for layers, too.

    Raises:
        InputError: budget and spaces do not fit each other, or an option cannot be used.
    """
    if name == "auto":
        zeros = _zeros("weights", spared) if budget.limits_zeros else None
        return Spaces(WIDTHS if budget.limits_structure or zeros is None else None, zeros)
    structure, found = [], []
    for part in _parts(name):
        zeros = _zeros(part, spared)
        if zeros is None:
            structure.append(part)
        else:
            found.append(zeros)
    if len(structure) > 1 or len(found) > 1:
        raise InputError(f"expected a space such as widths, weights, kernels or widths+weights, got {name!r}")
    spaces = Spaces(structure[0] if structure else None, found[0] if found else None)
    if budget.limits_zeros and spaces.zeros is None:
        raise InputError(
            f"the budget {str(budget)!r} limits what is not zero, and the space {name!r} has no zeros inside of "
            f"weights; write --space {name}+weights, or leave it out"
        )
    if spaces.zeros is not None and not budget.limits_zeros:
        raise InputError(
            f"the space {name!r} has zeros inside of weights, and the budget {str(budget)!r} does not say how many; "
            "add for example 20%NNZ, as in --budget '50%,20%NNZ'"
        )
    if spaces.structure is None and budget.limits_structure:
        raise InputError(
            f"zeros inside of weights leave FLOPs, parameters and latency as they are, and the budget {str(budget)!r} "
            f"limits them; write --space widths+{name}"
        )
    return spaces


def zero_method(name: str, spaces: Spaces, *, has_data: bool, plugins: Plugins) -> Sparsifier | None:
    """What chooses zeros, `None` where there are to be none.

    Raises:
        UnknownNameError: nothing is called so. InputError: there is no data, or a method and no zeros.
    """
    if spaces.zeros is None:
        if name != "auto":
            raise InputError(f"`sparsifier` is {name!r}, and the budget asks for no zeros; add for example 20%NNZ")
        return None
    if not has_data:
        raise InputError("zeros inside of weights are chosen by calibration images; give some with `data=` (`--data`)")
    _, make, _ = with_options("sparsifiers", _method(name), plugins)
    made: Sparsifier = make()
    return made


def zero_settings(names: Names, spaces: Spaces) -> dict[str, str]:
    """What of it decides the result, in words."""
    if spaces.zeros is None:
        return {}
    space = names.space if names.space != "auto" else "+".join([*filter(None, (spaces.structure,)), "weights"])
    return {"space": space, "sparsifier": _method(names.sparsifier)}


def _method(name: str) -> str:
    return DEFAULT if name == "auto" else name


def _zeros(part: str, spared: Mapping[str, object]) -> ZeroSpace | None:
    named = parse_named(part)
    if named.name not in PATTERNS:
        return None
    for option in named.options:
        if option not in OPTIONS:
            raise UnknownNameError(f"`{named.name}` option", option, OPTIONS)
        if option in ("include", "exclude"):
            arguments.names(option, named.options[option])
    given = {**spared, **named.options}
    return ZeroSpace(
        pattern=Pattern.parse(given.get("pattern", PATTERNS[named.name])),
        spread=str(given.get("spread", "harm")),
        include=_globs(given.get("include", ())),
        exclude=_globs(given.get("exclude", ())),
    )


def _globs(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def _parts(name: str) -> list[str]:
    """Cut at every plus outside of brackets."""
    parts, depth = [""], 0
    for letter in name:
        depth += (letter == "(") - (letter == ")")
        if letter == "+" and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
