"""What decides a training, in words: a record of it goes on only with the same."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from torch import Tensor, nn

from nasprune.data import DataSplits
from nasprune.data.identity import of_data, of_made, of_model
from nasprune.train.augmenting import Augment
from nasprune.train.recipe import Recipe
from nasprune.train.targets import AnyTask


def settings_of(
    model: nn.Module,
    teacher: nn.Module | None,
    parts: DataSplits,
    recipe: Recipe,
    seed: int,
    augment: Augment | None,
    precision: str,
    task: AnyTask | None = None,
    masks: Mapping[str, Tensor] | None = None,
) -> dict[str, str]:
    """Names and values. Random transforms of the data draw from the global generators; seed these for the same."""
    return {
        "model": type(model).__name__,
        "weights": of_model(model),
        "teacher": of_model(teacher) if teacher is not None else "none",
        "data": parts.name,
        "data split": parts.split,
        "images": of_data(parts),
        **recipe.words(),
        "seed": str(seed),
        "augment": "none" if augment is None else _named(augment),
        "precision": precision,
        **({"task": f"{type(task).__qualname__} {of_made(task)}"} if task is not None else {}),
        **({"masks": of_made(dict(masks))} if masks else {}),
    }


def _named(augment: Augment) -> str:
    made = augment if inspect.isroutine(augment) else type(augment)
    return f"{getattr(made, '__qualname__', 'one')} {of_made(augment)}"
