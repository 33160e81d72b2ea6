"""`nasprune.load`: the network that a folder holds, whichever command wrote it, with one call.

A folder of a trim may hold a search of what was left: its operations are chosen by `architecture.json` or
`supernet.json`, its channels by `channels/plan.json`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from nasprune.common.arguments import path
from nasprune.common.inputs import ExampleInputs
from nasprune.errors import InputError
from nasprune.registry import Plugins
from nasprune.run import checkpoint
from nasprune.supernet.saved import ARCHITECTURE, SUPERNET, SupernetFile
from nasprune.supernet.storage import load_architecture, load_supernet
from nasprune.supernet.supernet import Supernet

CHANNELS = "channels"
"""The folder of the network with fewer channels, inside that of a trim."""
TRIMMED = "supernet"
"""The folder of the trimmed supernet, inside that of a trim that discretises."""


def load(
    folder: str | Path,
    model: nn.Module | Supernet | None = None,
    *,
    example_inputs: ExampleInputs | None = None,
    plugins: Plugins = None,
) -> nn.Module:
    """The small network saved in `folder`, with its weights: what a search found, or what a trim left.

    A plan is replayed on a copy of the dense model. Where a trim was saved, the operations that stay are taken out of
    the supernet, and if the channels of that were searched too (`channels/` in the folder), the plan of this search
    is replayed on the result.

    Args:
        folder: what `nasprune.save`, `save_architecture` or `save_supernet` wrote, or a command of the same kind.
        model: the dense network that the search started from, or the whole supernet, or the `nasprune.Supernet` that
            was made of it; with any weights, and left as it is. Not needed where a space of supernets builds it.
        example_inputs: to trace it with, as for `nasprune.trace`; else noise of the shapes that were recorded.
        plugins: folders with op rules or spaces of supernets.

    Returns:
        A new network in eval mode.

    Raises:
        InputError: a file is missing or damaged, the weights are of another save, or a model is needed; names file and
            field.
        PlanError: a plan is damaged, or the model is not the one it was made for; the first difference is named.
    """
    folder = path("folder", folder, "write nasprune.load('runs/mine', model=the_dense_model)")
    found = None if (folder / checkpoint.PLAN).exists() else _trimmed(folder, model, example_inputs, plugins)
    if found is not None:
        if not (folder / CHANNELS / checkpoint.PLAN).exists():
            return found
        return checkpoint.load(folder / CHANNELS, found, example_inputs=example_inputs, plugins=plugins)
    if model is None:
        raise InputError(_needs(folder))
    dense = model.net if isinstance(model, Supernet) else model
    return checkpoint.load(folder, dense, example_inputs=example_inputs, plugins=plugins)


def _needs(folder: Path) -> str:
    if not (folder / checkpoint.PLAN).exists():
        return (
            f"{str(folder)!r} holds neither {checkpoint.PLAN}, {ARCHITECTURE} nor {SUPERNET}; give a folder that a "
            "search or a trim was saved in"
        )
    return (
        f"{str(folder)!r} holds a plan, which is replayed on the dense model; give that one with any weights, "
        "nasprune.load(folder, model=the_dense_model)"
    )


def _trimmed(
    folder: Path, model: nn.Module | Supernet | None, example_inputs: ExampleInputs | None, plugins: Plugins
) -> nn.Module | None:
    """What a trim left; `None` where none was saved."""
    if (folder / ARCHITECTURE).exists():
        own = None if isinstance(model, Supernet) else _example(folder, example_inputs)
        return load_architecture(folder, model, own, plugins=plugins)
    if (folder / SUPERNET).exists():
        return load_supernet(folder, model, plugins=plugins).net
    return None


def _example(folder: Path, given: ExampleInputs | None) -> Tensor | None:
    """An example input for the whole supernet: the given one, or noise of the shape recorded beside the network."""
    if given is not None or not (folder / TRIMMED / SUPERNET).exists():
        return given if isinstance(given, Tensor) else None
    saved = SupernetFile.read(folder / TRIMMED)
    example = torch.randn(saved.input_shape, generator=torch.Generator().manual_seed(0), device="cpu")
    return torch.zeros_like(example, dtype=torch.int64) if saved.whole_numbers else example
