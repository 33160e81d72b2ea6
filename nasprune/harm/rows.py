"""What layers read of calibration inputs, as sums: the quadratic form of what a change of their weights does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.calibration.called import routed
from nasprune.calibration.layers import RowSums, patches, row_count, weight_matrix
from nasprune.common.calls import at_least_single, first_tensor, in_type_of, removed_after
from nasprune.common.phases import Steps, unseen
from nasprune.common.untouched import undisturbed
from nasprune.harm.fisher import Layers

ROWS = 20_000
LARGEST = 6_144  # features up to which what a layer reads is summed


def damped(sums: RowSums) -> Tensor:
    """The covariance (groups, F, F), float64, with a thousandth of its mean diagonal added."""
    gram = sums.covariance()
    damp = 1e-3 * gram.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    gram.diagonal(dim1=1, dim2=2).add_(damp[:, None])
    return gram


def read_rows(
    model: nn.Module, layers: Layers, batches: Sequence[Tensor], on_step: Steps = unseen
) -> dict[str, RowSums]:
    """Sums of what each layer reads, by the name of its weight, but of very wide ones and those that do not run.

    model: left as found. layers: held by the names of their weights. batches: inputs (n, ...). on_step: told how many
    batches are done.
    """
    chosen = {param: held for param, held in layers.items() if weight_matrix(held[0]).shape[1] <= LARGEST}
    sums = {param: RowSums() for param in chosen}
    share = max(1, ROWS // len(batches))
    generator = torch.Generator().manual_seed(0)

    def watch(param: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = first_tensor(args, kwargs)
            count = row_count(layer, x)
            rows = torch.randint(count, (min(share, count),), generator=generator, device="cpu")
            with torch.autocast(x.device.type, enabled=False):
                sums[param].add(at_least_single(patches(layer, x, rows)).transpose(0, 1))

        return hook

    handles = [
        layer.register_forward_pre_hook(watch(param), with_kwargs=True)
        for param, held in chosen.items()
        for layer in held
    ]
    modules = [layer for held in chosen.values() for layer in held]
    with removed_after(handles), routed(modules), undisturbed(model):
        for number, batch in enumerate(batches, 1):
            model(in_type_of(model, batch))
            on_step(number, len(batches))
    return {param: known for param, known in sums.items() if known.count}
