"""Damages of whole nets, and how tests compare them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nasprune.harm.damage import Damages, damages
from nasprune.run.names import search_space
from nasprune.run.trace import trace

INPUT = (1, 3, 8, 8)


def harms_of(model: nn.Module, inputs: Tensor, *, refit: bool = False, example: Tensor | None = None) -> Damages:
    """Damages of every option, with units kept in the order of their numbers."""
    graph = trace(model.eval(), inputs[:1] if example is None else example)
    space = search_space(graph, "widths", divisor=2)
    assert space.choices
    scores = {group.name: torch.arange(group.width, 0.0, -1) for group in graph.free_groups}
    return damages(model, graph, space, scores, [inputs], refit=refit)


def assert_close(found: Damages, expected: Damages, rel: float = 1e-4) -> None:
    assert list(found) == list(expected)
    for name, harms in expected.items():
        assert found[name] == pytest.approx(harms, rel=rel, abs=0.01 * rel * max(harms.values()))
        assert max(harms.values()) > 0


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x).relu()
