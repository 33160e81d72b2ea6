"""`nasprune demo`, shortened: the whole way runs, writes a run folder, and gives the same numbers again."""

from __future__ import annotations

import json

import pytest
import torch

import nasprune
from nasprune.cli import demo, main
from nasprune.cost.latency import compare_latency
from tests.toys import tiny_net


@pytest.fixture
def short(monkeypatch, tmp_path, few_digits):
    monkeypatch.chdir(tmp_path)
    for name, value in (("EPOCHS", 8), ("TUNING_EPOCHS", 1), ("MODEL", "tests.toys:tiny_net")):
        monkeypatch.setattr(demo, name, value)
    monkeypatch.setattr(
        demo, "compare_latency", lambda models, inputs, repeats: compare_latency(models, inputs, repeats=2)
    )


def _rows(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["demo"])
    out = capsys.readouterr().out
    assert caught.value.code == 0
    lines = {line.split()[0]: line.split()[:-2] for line in out.splitlines() if line.strip()}  # the last is the latency
    return {name: lines[name] for name in ("dense", "cut", "fine-tuned")}


def _told(capsys):
    """The accuracies that it gives as JSON, in percent to one digit."""
    with pytest.raises(SystemExit):
        main(["demo", "--json", "--quiet"])
    captured = capsys.readouterr()
    assert captured.err == ""
    return [round(100 * net["accuracy"], 1) for net in json.loads(captured.out)["nets"]]


def test_demo(short, tmp_path, capsys):
    first = _rows(capsys)
    assert {path.name for path in (tmp_path / "runs" / "demo").iterdir()} == set(demo.FILES)
    small = nasprune.load(tmp_path / "runs" / "demo", model=tiny_net())
    assert small(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert _told(capsys) == [float(first[net][-5].rstrip("%")) for net in ("dense", "cut", "fine-tuned")]
    assert first["cut"][2:] == first["fine-tuned"][2:] != first["dense"][2:]
