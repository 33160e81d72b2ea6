"""Rows of benchmarks are on the disk as soon as they are there, and one that fails does not end the others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.table import Table

from benchmarks.rows import Failed, Record, worked


@dataclass(frozen=True)
class Square:
    of: int
    value: int


def squared(number: int) -> Square:
    if number == 2:
        raise ValueError("no two")
    if number == 4:
        raise KeyboardInterrupt
    return Square(number, number**2)


def test_an_interruption_keeps_the_rows_before_it(tmp_path: Path) -> None:
    rows: list[Square] = []

    def table() -> Table:
        shown = Table("of", "square")
        for row in rows:
            shown.add_row(str(row.of), str(row.value))
        return shown

    record, failed = Record(tmp_path / "new", "squares", table), []

    def run() -> None:
        for number, row in worked(squared, range(1, 6), at_once=1, threads=None):
            if isinstance(row, Failed):
                failed.append((number, str(row)))
            else:
                rows.append(row)
                record.add(row)

    with pytest.raises(KeyboardInterrupt):
        run()
    kept = json.loads((tmp_path / "new" / "rows.json").read_text())
    assert kept["rows"] == [{"kind": "Square", "of": 1, "value": 1}, {"kind": "Square", "of": 3, "value": 9}]
    assert "9" in (tmp_path / "new" / "table.txt").read_text()
    assert failed == [(2, "failed: ValueError: no two")]
