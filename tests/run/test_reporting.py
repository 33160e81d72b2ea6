"""The report page says what was cut, that it is proved, and how to load it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nasprune.run.reporting import bar, loading_lines, markdown
from tests.toys import tiny_report


def test_page():
    page = markdown(tiny_report(), folder="runs/x")
    for text in (
        "# tests.toys:tiny_net within 50% of FLOPs",
        "50.0% of the FLOPs and 40.0% of the parameters are left. 7 trials",
        "| FLOPs (multiply-adds) | 2 KFLOPs | 1 KFLOPs | 50.0% |",
        "| latency at batch 1 | 2 ms | 1 ms | 50.0% |",
        "| `conv1` | 16 → 8 | `██████████░░░░░░░░░░` | 50.0% |",
        "- `layer1.1`",
        "| `linear` | network output |",
        "The cut is proved",
        "- No weights were given.",
        "| 4 | 900 FLOPs | 40 params | 0.8125 |",
        'small = nasprune.load("runs/x", model=tiny_net())',
    ):
        assert text in page


def test_a_failed_proof_is_not_called_one():
    report = tiny_report()
    page = markdown(replace(report, proof=replace(report.proof, ok=False, predicted_flops=7)))
    assert "**The cut is not proved**" in page
    assert "**not equal to** the 7 predicted" in page


def test_nothing_cut():
    page = markdown(tiny_report(groups=(), dropped_blocks=(), notes=(), measured={}, front=()))
    assert "None is free." in page
    assert "latency" not in page
    assert "## Cost against score" not in page


@pytest.mark.parametrize(("kept", "cells"), [(0, 0), (8, 10), (16, 20)])
def test_bar(kept, cells):
    assert bar(kept, 16).count("█") == cells
    assert len(bar(kept, 16)) == 20


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("torchvision:resnet50", 'dense = torchvision.models.get_model("resnet50", weights=None)'),
        ("torchvision:fcn_resnet50", "weights_backbone=None"),
        ("timm:hrnet_w18", 'timm.create_model("hrnet_w18")'),
        ("nasprune.models:resnet20", "from nasprune.models import resnet20"),
        ("own.py:net", 'call_factory("own.py:net", what="model")'),
        ("", "YOUR_DENSE_MODEL"),
    ],
)
def test_loading_lines(spec, line):
    assert line in "\n".join(loading_lines(spec, "runs/x"))
