"""Which layers that run on several inputs do so on a batch as on the example that was traced."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nasprune.common.shelf import Shelf
from nasprune.errors import TraceError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph
from nasprune.refit.layer_by_layer import Side
from nasprune.refit.sites import Site
from nasprune.refit.targets import targets_of


def steady(dense: nn.Module, graph: ModelGraph, found: Sequence[Site], batch: Tensor) -> list[Site]:
    """The layers without those that run several times and more or less often on the batch, or in no program of it.

    batch: inputs (n, ...).
    """
    once = [site for site in found if not site.shared]
    if len(once) == len(found):
        return once
    with Shelf(0) as shelf:
        targets = targets_of(dense, graph, [batch], shelf, paths={site.path for site in found if site.shared})
        alike = [site for site in found if not site.shared or targets.ran(site)]
        try:
            Side.of(submodule(dense, graph.scope), targets.calls, shelf, alike)
        except TraceError:
            return once
    return alike
