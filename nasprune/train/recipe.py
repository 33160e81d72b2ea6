"""How a network is trained: one record of numbers, checked, and the optimizer that they ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

import torch
from torch import nn

from nasprune.common.arguments import number, refused, whole_number
from nasprune.errors import InputError
from nasprune.train.mixing import Mix

Optimizer = Literal["sgd", "adamw"]
Choice = Literal["last", "best"]
RATES = {"sgd": (0.05, 0.01), "adamw": (2e-3, 3e-4)}  # of an initialised network, of a trained one
GUIDED = 0.03  # of SGD, for a cut network that learns the features of the dense one


@dataclass(frozen=True)
class Recipe:
    """The numbers of a training, as `nasprune.finetune` takes and explains them.

    Raises:
        InputError: one is out of range.
    """

    epochs: int = 10
    lr: float | None = None
    optimizer: Optimizer = "sgd"
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.1
    smoothing: float = 0.0
    average: float = 0.98
    clip: float = 1.0
    temperature: float = 4.0
    soft_share: float = 0.9
    feature_share: float = 0.0
    choose: Choice = "last"
    accumulate: int = 1
    mix: Mix = "none"

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("accumulate", 1)):
            given = getattr(self, name)
            whole_number(name, given, f"write for example {name}=64")
            if given < least:
                raise InputError(f"`{name}` must be at least {least}, got {given}")
        for name, rule in RULES.items():
            given = getattr(self, name)
            if name == "lr" and given is None:
                continue
            number(name, given, f"write for example {name}=0.5")
            if not _holds(rule, given):
                raise InputError(f"`{name}` must be {rule}, got {given}")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise refused(name, f"one of {', '.join(known)}", getattr(self, name), f"write {name}={known[0]!r}")

    def words(self) -> dict[str, str]:
        """Names and values, for records."""
        return {field.name: str(getattr(self, field.name)) for field in fields(self)}

    def rate(self, *, trained: bool) -> float:
        """The highest learning rate: the one given, or one for networks that are trained, or not, already."""
        if self.lr is None and trained and self.feature_share and self.optimizer == "sgd":
            return GUIDED
        return self.lr if self.lr is not None else RATES[self.optimizer][trained]

    def new_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Over the parameters that take gradients; those of one axis, biases and norms, do not decay."""
        taken = [weight for weight in model.parameters() if weight.requires_grad]
        parts = [[weight for weight in taken if (weight.ndim > 1) == matrix] for matrix in (True, False)]
        groups = [
            {"params": part, "weight_decay": decay}
            for part, decay in zip(parts, (self.weight_decay, 0.0), strict=True)
            if part
        ]
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=0.0)
        return torch.optim.SGD(groups, lr=0.0, momentum=self.momentum, nesterov=self.momentum > 0)


CHOICES = {"optimizer": get_args(Optimizer), "choose": get_args(Choice), "mix": get_args(Mix)}
RULES = {
    "lr": "above 0",
    "momentum": "in [0, 1)",
    "weight_decay": "at least 0",
    "warmup": "in [0, 1)",
    "smoothing": "in [0, 1)",
    "average": "in [0, 1)",
    "clip": "at least 0",
    "temperature": "above 0",
    "soft_share": "in [0, 1]",
    "feature_share": "at least 0",
}


def _holds(rule: str, value: float) -> bool:
    if not math.isfinite(value):
        return False
    return {
        "above 0": value > 0,
        "at least 0": value >= 0,
        "in [0, 1)": 0 <= value < 1,
        "in [0, 1]": 0 <= value <= 1,
    }[rule]
