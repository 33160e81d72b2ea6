"""The format `timm`: the shapes of a narrowed timm network in the text that timm reads, and its weights beside it.

timm builds the dense network by its name, gives convolutions, batch norms and linear layers the widths of the text
(`timm.models.adapt_model_from_string`), and loads the weights. The text says no more than widths.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nasprune.common.inputs import Inputs
from nasprune.common.states import state_tensors
from nasprune.errors import InputError
from nasprune.models.weights import load_weights, to_bytes

BETWEEN = "***"


def check_packages() -> None:
    """Raises InputError where timm is missing."""
    if find_spec("timm") is None:
        raise InputError("the format timm needs timm; install it with: pip install 'nasprune[timm]'")


def write(model: nn.Module, path: Path) -> tuple[Path, ...]:
    """Writes the text, the weights, and what timm is to build as JSON; the paths of all.

    Raises:
        InputError: timm did not build the network.
    """
    name = getattr(model, "pretrained_cfg", {}).get("architecture")
    if not isinstance(name, str):
        raise InputError("only a network that timm has built can be written as timm reads it; take another format")
    state = state_tensors(model)
    path.write_text(BETWEEN.join(f"{key}:{list(value.shape)}" for key, value in state.items()))
    weights, made = path.with_suffix(".safetensors"), path.with_suffix(".json")
    weights.write_bytes(to_bytes(state))
    made.write_text(json.dumps({"architecture": name, "num_classes": getattr(model, "num_classes", None)}))
    return path, weights, made


def outputs(path: Path, calls: Sequence[Inputs]) -> list[Any]:
    """What timm's network gives.

    Raises:
        InputError: timm's text cannot say what was cut.
    """
    import timm
    from timm.models import adapt_model_from_string

    made = json.loads(path.with_suffix(".json").read_text())
    dense = timm.create_model(made["architecture"], num_classes=made["num_classes"])
    try:
        small = adapt_model_from_string(dense, path.read_text())  # type: ignore[no-untyped-call]
        load_weights(small, path.with_suffix(".safetensors"))
        with torch.no_grad():
            return [inputs.call(small.eval()) for inputs in calls]
    except (InputError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(
            "timm's text gives convolutions, batch norms and linear layers other widths, and cannot say what else was "
            'cut here, such as removed blocks; search with --space "widths(blocks=False)", or take another format'
        ) from error
