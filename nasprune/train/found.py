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


def as_found(given: object) -> Found | None:
    """What was given, where it is a search's result; a network may have attributes of these names, too."""
    return given if isinstance(given, Found) and not isinstance(given, nn.Module) else None
