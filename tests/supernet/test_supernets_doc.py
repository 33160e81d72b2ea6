"""The example of docs/supernets.md runs as it stands, and what it says of warnings is so."""

from __future__ import annotations

import pytest
import torch

from nasprune.supernet.report import checks
from nasprune.supernet.score.scorers.alpha import RULES
from tests.supernet import foreign
from tests.test_docs import ROOT, blocks

DOC = "docs/supernets.md"
FEW = ["none", "skip_connect", "sep_conv_3x3"]

pytestmark = pytest.mark.usefixtures("one_draw", "few_paths")


@pytest.fixture
def few(monkeypatch):
    """The net that stands for the reader's own has four candidates instead of eight, to save time."""
    names = ("none", "max", "skip", "dil3")
    monkeypatch.setattr(foreign, "PRIMITIVES", names)
    monkeypatch.setattr(foreign.DartsNet, "names", names)


def test_the_examples_run(few, capsys):
    torch.manual_seed(0)
    example, _ = blocks(DOC, "python")
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


def test_the_example_of_one_network_runs(capsys):
    """With fewer operations and cells than the paper's, to save time."""
    names: dict[str, object] = {}
    example = blocks(DOC, "python")[1]
    for written, instead in (('"darts"', f'"darts(ops={FEW})"'), ("layers=20", "layers=6")):
        assert written in example
        example = example.replace(written, instead)
    exec(example, names)
    assert names["found"].counts.macs <= 200_000
    assert "Genotype(normal=" in capsys.readouterr().out


def test_all_rules_are_listed():
    text = (ROOT / DOC).read_text()
    assert all(f"| `{rule}` |" in text for rule in RULES)
