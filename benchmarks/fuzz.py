"""Whether any damaged file runs code, hangs, raises an error of another kind, or loads as another net in silence.

    python -m benchmarks.fuzz [--times 2000] [--seed 0] [--only plan.json]

Every kind of file that nasprune reads is written once for a tiny net, damaged at random (`benchmarks/mutations.py`) and
read as a user would read it: plans, supernets, architectures and their weights by loading the network, records of
trials by resuming a search, reports by searching into their folder, genotypes by parsing. Half of the changes of JSON
get a right digest again, as a forger would do: these may describe another net, the others may not.

Counted for each kind: refused with one sentence (`NaspruneError`); read as the same; forged into something else that
loads; and what must not be: errors of other kinds, files changed by a refusal, code run, more than SECONDS taken,
another net in silence. The exit code is 1 where there is any of the latter.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import mutations
from benchmarks.fuzzed import TARGETS, Target
from nasprune.errors import NaspruneError

SECONDS = 60
REFUSED, SAME, FORGED = "refused", "the same", "forged"
BAD = ("another error", "file changed", "code run", "too long", "another net")
EVIL = "import pathlib\npathlib.Path({mark!r}).write_text('ran')\ndef make(): raise SystemExit\nSpace = make\n"


class TooLong(BaseException):
    """Raised by the alarm."""


@dataclass(frozen=True)
class Verdict:
    """What came of one damaged file. detail: the error, where it is not to be."""

    kind: str
    detail: str = ""


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """Raises TooLong inside after so many seconds."""

    def ring(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Trap:
    """A folder whose `evil.py` leaves a mark when it is run; the working folder, so that it could be imported."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "OWNED"
        (folder / "evil.py").write_text(EVIL.format(mark=str(self.mark)))

    def sprung(self) -> bool:
        ran = self.mark.exists() or "evil" in sys.modules
        self.mark.unlink(missing_ok=True)
        sys.modules.pop("evil", None)
        return ran


def damaged(target: Target, content: bytes, rng: random.Random) -> tuple[bytes, bool]:
    """The content of a file changed, and whether it carries a right digest again."""
    kind = rng.randrange(4)
    if kind == 0 or target.kind == "text":
        return mutations.of_bytes(content, rng), False
    if target.kind == "tensors":
        return mutations.of_tensors(content, rng), False
    lines = content.splitlines() if target.kind == "lines" else [content]
    number = rng.randrange(len(lines))
    if kind == 1 and target.kind == "lines":
        moved = lines.pop(number)
        place = rng.randrange(len(lines) + 1)
        lines[place:place] = [moved] * rng.randrange(3)
        return b"".join(line + b"\n" for line in lines), False
    record = mutations.of_json(json.loads(lines[number]), rng)
    forged = kind == 3 and isinstance(record, dict) and target.seal is not None
    if forged and target.seal is not None:
        record = target.seal(record)
    lines[number] = json.dumps(record).encode() if target.kind == "lines" else mutations.json_text(record)
    return b"".join(line + b"\n" for line in lines), forged


def judged(target: Target, folder: Path, expected: Any, content: bytes, *, forged: bool, trap: Trap) -> Verdict:
    """What reading the damaged file does."""
    path = folder / target.file
    path.write_bytes(content)
    try:
        with alarm(SECONDS):
            found = target.read(folder)
    except NaspruneError as error:
        verdict = Verdict(REFUSED) if path.read_bytes() == content else Verdict("file changed", str(error))
        if "\n" in str(error) or len(str(error)) > 2000:
            verdict = Verdict("another error", f"a message of {len(str(error))} characters: {str(error)[:200]!r}")
    except TooLong:
        verdict = Verdict("too long")
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        verdict = Verdict(
            "another error", f"{type(error).__name__}: {str(error)[:120]} at {where.filename}:{where.lineno}"
        )
    else:
        same = target.same(expected, found)
        verdict = Verdict(SAME if same else FORGED if forged else "another net", "" if same else repr(found)[:200])
    return Verdict("code run") if trap.sprung() else verdict


def fuzz(target: Target, times: int, seed: int) -> tuple[collections.Counter[str], list[tuple[Verdict, bytes]]]:
    """Verdicts on `times` damaged files of one kind, and those that must not be with what was read."""
    counts: collections.Counter[str] = collections.Counter()
    bad: list[tuple[Verdict, bytes]] = []
    rng = random.Random(f"{target.name}/{seed}")
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        sys.path.insert(0, place)
        try:
            whole, trap = Path(place) / "whole", Trap(Path(place))
            target.write(whole)
            expected = target.read(whole)
            for _ in range(times):
                shutil.rmtree("got", ignore_errors=True)
                shutil.copytree(whole, "got")
                shutil.copy("evil.py", "got")
                content, forged = damaged(target, (whole / target.file).read_bytes(), rng)
                verdict = judged(target, Path("got"), expected, content, forged=forged, trap=trap)
                counts[verdict.kind] += 1
                if verdict.kind in BAD:
                    bad.append((verdict, content))
        finally:
            os.chdir(before)
            sys.path.remove(place)
    return counts, bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    columns = (REFUSED, SAME, FORGED, *BAD)
    table = Table("file", *columns)
    failed = False
    for target in TARGETS:
        if options.only not in target.name:
            continue
        counts, bad = fuzz(target, options.times, options.seed)
        table.add_row(target.name, *(str(counts[column]) for column in columns))
        failed = failed or bool(bad)
        print(target.name, dict(counts), flush=True)
        for verdict, content in bad[:10]:
            print(f"  {verdict.kind}: {verdict.detail}\n    {content[:200]!r}", flush=True)
    Console(width=140).print(table)
    sys.exit(failed)


if __name__ == "__main__":
    main()
