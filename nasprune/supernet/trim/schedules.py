"""How many candidates may stay, and in how many steps: `topk`, `threshold`, `progressive`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nasprune.common.options import parse_named
from nasprune.errors import InputError, UnknownNameError
from nasprune.space.choices import OpChoice


@dataclass(frozen=True)
class Stage:
    """One step of trimming. keep: most candidates of a choice that stay; `None` is all.

    share: candidates whose share of the choice's scores is lower go. epochs: of training afterwards.
    """

    keep: int | None = None
    share: float = 0.0
    epochs: int = 0

    def keep_max(self, choices: Sequence[OpChoice], scores: Mapping[str, Tensor]) -> dict[str, int]:
        """For each choice how many candidates may stay, at least one."""
        found = {}
        for choice in choices:
            values = scores[choice.name].double().clamp(min=0)
            total = float(values.sum())
            above = int((values >= self.share * total).sum()) if total > 0 and self.share > 0 else len(choice.ops)
            most = above if self.keep is None else min(above, self.keep)
            found[choice.name] = max(1, most)
        return found


def topk(k: int = 3) -> tuple[Stage, ...]:
    """The k candidates of each choice with the highest scores."""
    _check(isinstance(k, int) and k >= 1, f"`k` must be a whole number of at least 1, got {k!r}")
    return (Stage(keep=k),)


def threshold(share: float = 0.1) -> tuple[Stage, ...]:
    """The candidates with at least this share of their choice's positive scores, and the best one in any case."""
    _check(isinstance(share, int | float) and 0 < share < 1, f"`share` must be in (0, 1), got {share!r}")
    return (Stage(share=float(share)),)


def progressive(stages: Sequence[int] = (5, 3), epochs: int = 2) -> tuple[Stage, ...]:
    """Fewer and fewer candidates, with training in between: P-DARTS, Chen et al. 2019, arXiv:1904.12760.

    Departures: weights are kept from stage to stage where the paper starts anew, and the depth does not grow.
    """
    counts = list(stages)
    valid = counts and all(isinstance(n, int) and n >= 1 for n in counts) and counts == sorted(counts, reverse=True)
    _check(bool(valid), f"`stages` must be falling whole numbers of at least 1, got {stages!r}")
    _check(isinstance(epochs, int) and epochs >= 0, f"`epochs` must be a whole number, got {epochs!r}")
    return tuple(Stage(keep=n, epochs=epochs if n != counts[-1] else 0) for n in counts)


SCHEDULES = {"topk": topk, "threshold": threshold, "progressive": progressive}


def stages_of(text: str) -> tuple[Stage, ...]:
    """The stages that "topk(k=3)", "threshold(share=0.1)" or "progressive(stages=[5, 3], epochs=2)" stands for.

    Raises:
        UnknownNameError: nothing is called so. InputError: an option is unknown or out of range.
    """
    named = parse_named(text)
    if named.name not in SCHEDULES:
        raise UnknownNameError("schedule", named.name, SCHEDULES)
    make: Any = SCHEDULES[named.name]
    try:
        found: tuple[Stage, ...] = make(**named.options)
    except TypeError as error:
        raise InputError(f"the schedule {text!r} refuses its options: {error}") from error
    return found


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)
