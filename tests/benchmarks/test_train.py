"""The benchmarks of recovery: strategies take part in a loop, and a run that hurts is told from one that does not."""

from __future__ import annotations

import torch

from benchmarks import strategies
from benchmarks.finetune import Run
from nasprune.cost.flops import measure
from nasprune.data import DataSplits, load_data
from nasprune.models.nets import digits_net


def test_a_strategy_takes_part_in_the_training() -> None:
    digits = load_data("digits")
    few = digits.train.subset(range(128))  # type: ignore[attr-defined]
    data = DataSplits("digits", few, digits.calibration, digits.validation, digits.test, 10, (1, 8, 8))
    dense = digits_net()
    before = dense.state_dict()["conv1.weight"].clone()
    small, change = strategies.pruned(dense, data, "50%", "hard", 0, epochs=1)
    example = torch.zeros(1, 1, 8, 8)
    assert measure(small, example).flops <= measure(dense, example).flops / 2
    assert change < 1e-4
    assert torch.equal(dense.state_dict()["conv1.weight"], before)


def test_a_run_hurts_below_one_standard_error() -> None:
    assert Run(0.99, 0.95, 0.93, 0.95, 0.01).hurts
    assert not Run(0.99, 0.95, 0.945, 0.95, 0.01).hurts
