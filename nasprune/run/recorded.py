"""Reading the record of a run, line by line and without changing it: settings, rounds and their trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nasprune.common.fields import Field, Source, parse
from nasprune.common.files import content_of
from nasprune.space.trials import Trial

FILE = "trials.jsonl"
LARGEST = 2**30
"""Bytes of the largest record that is read."""
BEGINNINGS = (b'{"index": ', b'{"round": ')
"""Of all lines but the first."""
THEN = "choose another folder, or move the file away"


@dataclass(frozen=True)
class Recorded:
    """What a record holds. rounds: what was frozen, and the trials. size: bytes of the whole lines."""

    settings: Mapping[str, str]
    rounds: list[tuple[dict[str, str], list[Trial]]]
    size: int


def recorded(path: Path, first: bytes = b"") -> Recorded:
    """What is recorded in the file, which is left as it is. first: the line that this run would begin it with.

    Raises:
        InputError: the file cannot be read, is not a record of nasprune, or is damaged; names the line.
    """
    content = content_of(path, "the record of trials", THEN, most=LARGEST)
    lines = content.split(b"\n")
    torn = lines.pop()
    if not lines:
        if torn and not first.startswith(torn):
            raise _source(path, 1).wrong("it does not begin with the settings of a search")
        return Recorded({}, [], 0)
    _check_torn(path, len(lines) + 1, torn)
    settings = _settings(parse(lines[0], _source(path, 1)))
    rounds: list[tuple[dict[str, str], list[Trial]]] = []
    for number, line in enumerate(lines[1:], start=2):
        _take(parse(line, _source(path, number)), rounds)
    return Recorded(settings, rounds, len(content) - len(torn))


def settings_in(folder: Path) -> Mapping[str, str] | None:
    """The settings of the run that is recorded in `folder`; `None` where there is no record.

    Raises:
        InputError: as `recorded`.
    """
    path = folder / FILE
    return recorded(path).settings if path.exists() else None


def trials_in(folder: Path) -> int:
    """How many trials the record in `folder` holds, by its lines; 0 where there is none."""
    try:
        return sum(line.startswith(BEGINNINGS[0]) for line in (folder / FILE).read_bytes().split(b"\n"))
    except OSError:
        return 0


def _source(path: Path, line: int) -> Source:
    return Source(f"line {line} of {str(path)!r}", "a trial record of nasprune", THEN)


def _check_torn(path: Path, number: int, torn: bytes) -> None:
    """Raises InputError unless the unfinished last line is the beginning of one of ours, as a kill leaves it."""
    begun = torn.rstrip(b"\0")  # what a power failure makes of it
    if not any(begun.startswith(known) or known.startswith(begun) for known in BEGINNINGS):
        raise _source(path, number).wrong("it is unfinished, and does not begin as a trial does")


def _settings(found: Field) -> dict[str, str]:
    if not isinstance(found.value, dict) or list(found.value) != ["settings"]:
        raise found.source.wrong("it does not begin with the settings of a search")
    return found.members()["settings"].words()


def _take(found: Field, rounds: list[tuple[dict[str, str], list[Trial]]]) -> None:
    """Adds the round or the trial of one line."""
    members = found.members()
    if "round" in members:
        parts = found.parts("round", "frozen")
        if parts["round"].whole() != len(rounds):
            raise parts["round"].wrong(f"round {len(rounds)}, which follows")
        rounds.append((parts["frozen"].words(), []))
        return
    if not rounds:
        raise found.source.wrong("expected a line that opens round 0")
    trial = Trial.of(found)
    if trial.index != len(rounds[-1][1]):
        raise members["index"].wrong(f"trial {len(rounds[-1][1])}, which follows")
    rounds[-1][1].append(trial)
