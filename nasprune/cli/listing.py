"""`nasprune list`."""

from __future__ import annotations

from pathlib import Path

from nasprune.cli.screen import answer, say, stdout, table
from nasprune.errors import PluginError
from nasprune.registry import KINDS, Entry, entries


def run(plugins: tuple[Path, ...], *, check: bool) -> int:
    """Prints every plugin by kind, name and origin; with `check` imports it. 1 if one fails, else 0."""
    found = [entry for kind in KINDS for entry in entries(kind, plugins)]
    taken: dict[tuple[str, str], int] = {}
    for entry in found:
        taken[entry.kind, entry.name] = taken.get((entry.kind, entry.name), 0) + 1
    failures = [failure for entry in found if check and (failure := _failure(entry))]
    failures += [f"{kind} {name!r} is declared {count} times" for (kind, name), count in taken.items() if count > 1]
    answer({"plugins": [_record(entry) for entry in found], "failures": failures})
    rows = [(KINDS[entry.kind].singular, entry.name, entry.origin) for entry in found]
    stdout().print(table(("kind", "name", "from"), rows))
    for failure in failures:
        say(failure)
    if check and not failures:
        say(f"all {len(found)} can be imported")
    return 1 if failures else 0


def _record(entry: Entry) -> dict[str, str]:
    return {"kind": KINDS[entry.kind].singular, "name": entry.name, "from": entry.origin}


def _failure(entry: Entry) -> str:
    try:
        entry.load()
    except PluginError as error:
        return " ".join(str(error).split())
    return ""
