"""Every operator that is counted: by fvcore's trace, on the captured program, as predicted, by hand, and by torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nasprune.common.inputs import Inputs
from nasprune.cost.flops import CostModel, measure
from nasprune.cost.traced import captured_counts
from nasprune.errors import NaspruneError
from nasprune.run.trace import trace
from tests.cost.operators import OPERATORS, Calls, Operator

every_operator = pytest.mark.parametrize("case", OPERATORS, ids=lambda case: case.name)


@every_operator
def test_counted_by_hand(case: Operator) -> None:
    assert measure(case.make(), case.inputs).flops == case.flops


@every_operator
def test_predicted_as_counted(case: Operator) -> None:
    model = case.make().eval()
    assert CostModel(trace(model, case.inputs)).dense == measure(model, case.inputs)


@every_operator
def test_a_trace_and_a_captured_program_agree(case: Operator) -> None:
    model = case.make().eval()
    found = captured_counts(model, Inputs.of(case.inputs))
    counted = measure(model, case.inputs)
    assert sum(n for name, n in found.items() if name.startswith("flops:")) == counted.flops
    assert sum(n for name, n in found.items() if name.startswith("acts:")) == counted.activations


@pytest.mark.parametrize("case", [case for case in OPERATORS if case.seen_by_torch], ids=lambda case: case.name)
def test_torch_counts_twice_as_many(case: Operator) -> None:
    """Its own counter counts a multiply-add as two, of convolutions and matrix products."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        case.make().eval()(*case.inputs)
    assert counter.get_total_flops() == 2 * case.flops


@pytest.mark.usefixtures("looked_at_anew")
def test_a_failed_trace_leaves_no_hooks() -> None:
    model = Calls(
        lambda self, x: torch.utils.checkpoint.checkpoint(self.layer, x, use_reentrant=True), layer=nn.Linear(8, 4)
    )
    measure(model, torch.randn(5, 8))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_does_not_run_is_an_error_that_says_so() -> None:
    with pytest.raises(NaspruneError, match="does not run on inputs of shape"):
        measure(nn.Linear(8, 4), torch.randn(5, 7))


@pytest.mark.usefixtures("looked_at_anew")
def test_fast_attention_is_left_as_it_was() -> None:
    measure(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(2, 5, 8))
    assert torch.backends.mha.get_fastpath_enabled()
