"""Candidates that take over the share of those that went, where the net computes shares in a way of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.supernet.cut.removal import replace


class Scaled(nn.Module):
    """A candidate times a fixed factor, by which those that stay make up the whole mixture.

    factor: () in the state_dict; it does not train, and does not follow shares that do.
    """

    factor: Tensor

    def __init__(self, candidate: nn.Module) -> None:
        super().__init__()
        self.candidate = candidate
        self.register_buffer("factor", torch.ones((), device="cpu"))

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = self.candidate(*args, **kwargs)
        return output * self.factor.to(output)

    def extra_repr(self) -> str:
        return f"factor={float(self.factor):.4g}"


def scaled_as(net: nn.Module, ops: Sequence[str], names: Collection[str]) -> None:
    """Makes candidates at the paths `ops` `Scaled`, in place, that a state_dict with `names` has so, and no others."""
    for path in ops:
        module = net.get_submodule(path)
        candidate = module.candidate if isinstance(module, Scaled) else module
        own = "factor" in candidate.state_dict()
        saved = f"{path}.factor" in names and (not own or f"{path}.candidate.factor" in names)
        if saved is not isinstance(module, Scaled):
            replace(net, path, Scaled(candidate) if saved else candidate)


def scale(net: nn.Module, ops: Sequence[str], gone: Collection[int], factor: float) -> None:
    """Multiplies the candidates at the paths `ops` that are not `gone` by `factor`, in place."""
    for path in (path for number, path in enumerate(ops) if number not in gone):
        module = net.get_submodule(path)
        if not isinstance(module, Scaled):
            module = Scaled(module)
            replace(net, path, module)
        module.factor.mul_(factor)
