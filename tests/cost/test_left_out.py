"""What a network runs and its FLOPs leave out: named, timed, and refused where it is too much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

import nasprune
from nasprune.cost.budget import Budget
from nasprune.cost.left_out import left_out
from nasprune.cost.uncounted import Uncounted, check_counted
from nasprune.errors import BudgetError
from nasprune.run.trace import trace
from tests.cost.operators import IMAGE, SEQUENCE, VECTOR, Calls, call

BOXES = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0]])


def found(make: Callable[[], nn.Module], *inputs: Tensor) -> tuple[Uncounted, ...]:
    model = make().eval()
    return left_out(model, trace(model, inputs))


@pytest.mark.parametrize(
    ("function", "inputs", "kind"),
    [
        (functional.hardswish, [IMAGE], "element-wise"),
        (lambda x: torch.where(x > 0, x, -x), [IMAGE], "element-wise"),
        (torch.outer, [VECTOR, VECTOR], "element-wise"),
        (lambda x: x.softmax(1), [IMAGE], "norms and sums"),
        (lambda x: functional.rms_norm(x, (8,)), [IMAGE], "norms and sums"),
        (lambda x: functional.cosine_similarity(x, x), [IMAGE], "norms and sums"),
        (lambda x: functional.max_pool2d(x, 2), [IMAGE], "pooling and resampling"),
        (lambda x: functional.interpolate(x, scale_factor=2, mode="bicubic"), [IMAGE], "pooling and resampling"),
        (lambda x: torch.cat([x, x]).roll(1, 0)[:, [0, 2]], [IMAGE], "moving data"),
        (lambda x: x.sort().indices, [IMAGE], "moving data"),
        (lambda x: torch.zeros_like(x).index_add(1, torch.tensor([1]), x[:, :1]), [IMAGE], "moving data"),
        (lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect").permute(0, 2, 1, 3), [IMAGE], "moving data"),
    ],
)
def test_kinds_that_count_nothing_by_convention(function: Callable[..., Any], inputs: list[Tensor], kind: str) -> None:
    kinds = found(call(function), *inputs)
    assert all(item.by_convention for item in kinds)
    assert kind in [item.operator for item in kinds]


@pytest.mark.parametrize(
    ("function", "inputs", "name"),
    [
        (lambda x: torch.linalg.inv(x[:, :5, :5]), [SEQUENCE], "linalg_inv"),
        (lambda x: torchvision.ops.roi_align(x, [BOXES], 2), [IMAGE], "roi_align"),
    ],
)
def test_work_without_a_formula_is_named_with_its_line(
    function: Callable[..., Any], inputs: list[Tensor], name: str
) -> None:
    first = found(call(function), *inputs)[0]
    assert (first.operator, first.by_convention) == (name, False)
    assert ".py:" in first.site
    assert 0 < first.share <= 1


def test_what_is_counted_is_not_left_out() -> None:
    kinds = found(lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), SEQUENCE)
    assert all(item.by_convention for item in kinds)
    assert 0 < sum(item.share for item in kinds) < 1


def test_running_it_leaves_no_trace() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.calls.add_(1)
            return x.mul_(2)

    model, inputs = Counter().train(), torch.ones(1, 3)
    graph = trace(model, inputs)
    given = graph.example_inputs.tensors[0].clone()
    left_out(model, graph)
    assert model.training
    assert model.calls.item() == 0
    assert torch.equal(graph.example_inputs.tensors[0], given)


def test_a_program_that_does_not_run_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model = Calls(lambda self, x: self.layer(x), layer=nn.Linear(8, 4))
    graph = trace(model, SEQUENCE)
    assert left_out(nn.Linear(8, 4), graph) == ()
    assert "could not be measured" in caplog.text


INVERSE = Uncounted("linalg_inv", 0.06, by_convention=False, site="net.py:3")


def test_a_share_of_too_little_is_refused() -> None:
    with pytest.raises(BudgetError, match=r"leave out 6.0%.*`linalg_inv` at net.py:3.*--allow-uncounted"):
        check_counted(Budget.parse("60%"), [INVERSE])


@pytest.mark.parametrize("budget", ["1MFLOPs", "60%Params"])
def test_a_budget_that_is_no_share_of_flops_is_taken(budget: str) -> None:
    check_counted(Budget.parse(budget), [INVERSE])


def test_what_counts_nothing_by_convention_is_no_reason() -> None:
    check_counted(Budget.parse("60%"), [Uncounted("element-wise", 0.9, by_convention=True)])
    check_counted(Budget.parse("60%"), [Uncounted("linalg_inv", 0.05, by_convention=False)])


def test_a_share_of_nothing_is_refused() -> None:
    model = nn.Sequential(nn.Embedding(5, 8), nn.ReLU())
    dense = nasprune.predict(trace(model, torch.tensor([[1, 2]])), {})
    with pytest.raises(BudgetError, match="nothing that the model runs counts any"):
        Budget.parse("60%").resolve(dense)
    assert Budget.parse("50%Params").resolve(dense).params == 20


class Mixed(nn.Module):
    """What runs under autocast is of another type than what the captured program says."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.conv(x).relu()
        return x.float().mean((2, 3))


def test_a_program_that_was_captured_under_autocast_is_timed(caplog: pytest.LogCaptureFixture) -> None:
    assert "element-wise" in [item.operator for item in found(Mixed, torch.rand(1, 3, 8, 8))]
    assert "could not be measured" not in caplog.text
