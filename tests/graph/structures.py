"""All tiny nets that have one structural difficulty each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from nasprune.cut.stirred import distinct
from nasprune.graph.model import ModelGraph
from nasprune.run.trace import trace
from tests.graph.joins import JOINS
from tests.graph.layers import LAYERS
from tests.graph.operators import OPERATORS
from tests.graph.structure import Structure

STRUCTURES: list[Structure] = [*JOINS, *LAYERS, *OPERATORS]


@dataclass(frozen=True)
class Traced:
    """A net without equal numbers, in eval mode, and its graph; tests read both, and change copies."""

    model: nn.Module
    graph: ModelGraph


@cache
def traced(case: Structure) -> Traced:
    """The same for all tests of a process."""
    torch.manual_seed(0)
    model = distinct(case.make().eval())
    return Traced(model, trace(model, torch.randn(case.shape)))
