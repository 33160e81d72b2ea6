"""Which module raised an error."""

from __future__ import annotations

import traceback

from torch import nn


def innermost(model: nn.Module, error: BaseException) -> str | None:
    """Path of the innermost module of `model` that was running when it was raised; `None` where none was."""
    paths = {id(module): path for path, module in model.named_modules()}
    frames = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__))
    modules = [paths[id(owner)] for owner in frames if id(owner) in paths]
    return modules[-1] if modules else None
