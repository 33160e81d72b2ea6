"""Formulas over sizes that vary: at every decision they give what they give for plain numbers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import pytest

from nasprune.cost.calls import Call, Shape, broadcast
from nasprune.cost.formulas import FORMULAS
from nasprune.cost.sizes import Extent, Product


@dataclass
class Given(Call):
    """A call with its sizes and values by name."""

    operator: str
    tensors: Mapping[str, Shape] = field(default_factory=dict)
    lists: Mapping[str, list[Shape]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    made: Shape = ()

    def shape(self, *names: str) -> Shape | None:
        return next((self.tensors[name] for name in names if name in self.tensors), None)

    def shapes(self, name: str) -> list[Shape]:
        return self.lists[name]

    def value(self, name: str) -> Any:
        return self.values.get(name)

    @property
    def result(self) -> Shape:
        return self.made


def width(variable: int, dense: int, times: int = 1, fixed: int = 0) -> Extent:
    """times * value of the variable + fixed."""
    return Extent(dense * times + fixed, fixed, ((variable, float(times)),))


H, D, C, E = width(0, 4), width(1, 8), width(2, 6), width(2, 6, times=4)
VARYING = [
    Given("scaled_dot_product_attention", {"query": (1, H, 5, D), "key": (1, H, 7, D), "value": (1, H, 7, C)},
          made=(1, H, 5, C)),
    Given("scaled_dot_product_attention", {"query": (1, H, 5, D), "key": (1, 2, 5, D), "value": (1, 2, 5, D)},
          values={"enable_gqa": True}, made=(1, H, 5, D)),
    Given("einsum", lists={"tensors": [(1, 5, H, D), (1, 7, H, D)]}, values={"equation": "bnhd,bmhd->bhnm"},
          made=(1, H, 5, 7)),
    Given("einsum", lists={"tensors": [(1, D, C), (C, D), (D, H)]}, values={"equation": "bdc,cd,de->be"}, made=(1, H)),
    Given("matmul", {"self": (H, 5, D), "other": (1, D, C)}, made=(H, 5, C)),
    Given("matmul", {"self": (5, D), "other": (D,)}, made=(5,)),
    Given("baddbmm", {"batch1": (H, 5, D), "batch2": (H, D, 5)}, made=(H, 5, 5)),
    Given("lstm", {"input": (1, 9, D)}, {"params": [(E, D), (E, C), (E,), (E,)]}, {"num_layers": 1}),
    Given("gru_cell", {"input": (2, D), "w_ih": (E, D), "w_hh": (E, C)}),
    Given("deform_conv2d", {"input": (1, D, 6, 6), "weight": (C, D, 3, 3)}, made=(1, C, 6, 6)),
    Given("fft_fft", {"self": (1, C, 8)}, values={"dim": -1}, made=(1, C, 8)),
    Given("embedding_bag", {"weight": (9, D), "indices": (12,)}),
]  # fmt: skip


def at(values: Mapping[int, int], size: int | Extent) -> int:
    return size if isinstance(size, int) else size.fixed + round(sum(c * values[v] for v, c in size.terms))


def number(values: Mapping[int, int], products: tuple[Product, ...]) -> int:
    return sum(p.coefficient * prod(at(values, extent) for extent in p.extents) for p in products)


@pytest.mark.parametrize("call", VARYING, ids=lambda call: call.operator)
def test_a_formula_at_a_decision_is_the_formula_of_its_numbers(call: Given) -> None:
    formula = FORMULAS[call.operator]
    rng = random.Random(0)
    for _ in range(5):
        values = {variable: rng.randint(1, 9) for variable in range(3)}

        def plain(shape: Shape, values: Mapping[int, int] = values) -> Shape:
            return tuple(at(values, size) for size in shape)

        numbers = Given(
            call.operator,
            {name: plain(shape) for name, shape in call.tensors.items()},
            {name: [plain(shape) for shape in shapes] for name, shapes in call.lists.items()},
            call.values,
            plain(call.made),
        )
        varying, fixed = formula(call), formula(numbers)
        assert number(values, varying.flops) == number({}, fixed.flops) > 0
        assert number(values, varying.activations) == number({}, fixed.activations)


def test_attention_by_hand_at_varying_heads_and_sizes() -> None:
    found = FORMULAS["scaled_dot_product_attention"](VARYING[0])
    assert number({0: 3, 1: 5, 2: 2}, found.flops) == 3 * 5 * 7 * 5 + 3 * 5 * 7 * 2


def test_an_axis_of_one_gives_way() -> None:
    assert broadcast((1, 5), (H, 1)) == (H, 5)
    assert broadcast((5,), (2, 1)) == (2, 5)
