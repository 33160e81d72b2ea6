"""The example of docs/supernets.md runs as it stands, and what it says of warnings is so."""

from __future__ import annotations

import pytest
import torch

from nasprune.supernet import checks
from tests.test_docs import ROOT, blocks

DOC = "docs/supernets.md"


def test_the_example_runs(capsys):
    torch.manual_seed(0)
    (example,) = blocks(DOC, "python")
    names: dict[str, object] = {}
    exec(example, names)
    out = capsys.readouterr().out
    assert "42 mixed operations in 28 choices" in out
    trimmed = names["trimmed"]
    assert all(len(ops) <= 3 for ops in trimmed.choices.values())
    assert trimmed.report.after.macs <= 0.6 * trimmed.report.before.macs
    adapter = example.partition("supernet = ")[2].partition("print(")[0]
    assert len(adapter.splitlines()) <= 10


@pytest.mark.parametrize("number", [checks.AGREE, checks.BIASED])
def test_thresholds_are_as_written(number):
    assert str(number) in (ROOT / DOC).read_text()
