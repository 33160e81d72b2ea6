"""The names that people give to the parts of a data set, in folders and in dicts."""

from __future__ import annotations

from collections.abc import Iterable

from nasprune.errors import InputError

NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def part_of(name: str) -> str | None:
    """ "train", "validation" or "test" for a name of such a part, in any case of letters; else `None`."""
    return next((part for part, names in NAMES.items() if name.lower() in names), None)


def recognised(names: Iterable[str], where: str) -> dict[str, str]:
    """Part -> the name that stands for it.

    Raises:
        InputError: two names stand for one part, or none for the training part.
    """
    found: dict[str, str] = {}
    names = sorted(names)
    for name in names:
        part = part_of(name)
        if part is None:
            continue
        if part in found:
            raise InputError(f"{where} holds {found[part]!r} and {name!r}, both for the {part} part; keep one of them")
        found[part] = name
    if "train" not in found:
        raise InputError(f"{where} holds {', '.join(names)}, and no training part; call one 'train'")
    return found
