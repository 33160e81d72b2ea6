"""What a training says of itself while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One epoch of training. number counts from 1; loss: mean over the training images; seconds: since the start.

    validation_accuracy, validation_loss: of the averaged weights on the validation part. rate: at the end of the epoch.
    note: what happened that should be known, or nothing.
    """

    number: int
    of: int
    loss: float
    validation_accuracy: float
    seconds: float
    validation_loss: float = 0.0
    rate: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class TrainingStep:
    """One step of training. loss, accuracy: means since the epoch began; images: a second; left: seconds, at least."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    rate: float
    images: float
    left: float


OnEpoch = Callable[[Epoch], None]
OnStep = Callable[[TrainingStep], None]
