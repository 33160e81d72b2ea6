"""All tiny nets that have one structural difficulty each."""

from __future__ import annotations

from tests.graph.joins import JOINS
from tests.graph.layers import LAYERS
from tests.graph.operators import OPERATORS
from tests.graph.structure import Structure

STRUCTURES: list[Structure] = [*JOINS, *LAYERS, *OPERATORS]
