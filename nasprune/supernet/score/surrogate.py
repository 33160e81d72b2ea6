"""From numbers of single paths to what each candidate is worth: a ridge regression on which candidates ran."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nasprune.space.choices import OpChoice
from nasprune.supernet.score.paths import SinglePath, drawable

RIDGE = 1.0
"""Penalty on the squared effects, beside squared errors summed over paths of values of unit variance."""


def ranks(values: Sequence[float]) -> Tensor:
    """(n,), float64: how many of the others are lower, ties counting half, from 0 to n - 1."""
    column = torch.tensor(list(values), dtype=torch.float64, device="cpu")
    below = (column[:, None] > column[None, :]).sum(1) + (column[:, None] == column[None, :]).sum(1) / 2 - 0.5
    return below.double()


def normal_scores(values: Tensor) -> Tensor:
    """(n,), float64: the normal quantiles of the ranks (van der Waerden 1952).

    What adds up over many choices is spread like this, so that a sum of effects explains more of it than of ranks,
    which are crowded at both ends.
    """
    found: Tensor = torch.special.ndtri((ranks(values.tolist()) + 0.5) / len(values))
    return found


def main_effects(choices: Sequence[OpChoice], paths: Sequence[SinglePath], values: Tensor) -> dict[str, Tensor]:
    """Choice -> (ops,), float64: what a path gains by each candidate over the worst of the choice, least squares.

    Args:
        values: of the paths (n,), higher is better; their scale does not matter for the order of what comes out.

    Candidates that no path takes get 0, like the worst.
    """
    values = values.double() - values.double().mean()
    scale = float(values.std(correction=0)) or 1.0
    columns = [(choice.name, op) for choice in choices for op in drawable(choice)]
    where = {column: number for number, column in enumerate(columns)}
    taken = torch.zeros(len(paths), len(columns), dtype=torch.float64, device="cpu")
    for row, path in zip(taken, paths, strict=True):
        row[[where[item] for item in path.items()]] = 1.0
    gram = taken.T @ taken + RIDGE * torch.eye(len(columns), dtype=torch.float64, device="cpu")
    effects = torch.linalg.solve(gram, taken.T @ (values / scale))
    found = {}
    for choice in choices:
        some = list(drawable(choice))
        own = effects[[where[choice.name, op] for op in some]]
        found[choice.name] = torch.zeros(len(choice.ops), dtype=torch.float64, device="cpu")
        found[choice.name][some] = own - own.min()
    return found
