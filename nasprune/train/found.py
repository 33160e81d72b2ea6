"""What a search returns, as far as training asks: it says which channels of the dense network the cut one has."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn

from nasprune.cut.plan import PrunePlan
from nasprune.graph.model import ModelGraph


@runtime_checkable
class Found(Protocol):
    """A cut network, the plan that cut it, and the graph of the dense network that the plan is of."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def plan(self) -> PrunePlan: ...

    @property
    def graph(self) -> ModelGraph: ...
