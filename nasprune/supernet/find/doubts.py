"""Whether the architecture weights that the user gives are those by which the net mixes its candidates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nasprune.supernet.find.mixed import MixedOp

FAR, REVERSED = 1e-3, 2e-5
"""How far shares may be apart; and how far those that are in another order, where they are nearly even."""
COARSE = 3e-2
"""The same for numbers of less than four bytes."""


def doubts(mixed: Sequence[MixedOp], given: Sequence[Tensor], dtype: torch.dtype) -> list[str]:
    """At most one note, which names the first place where the softmax of `given` differs from what was measured.

    Args:
        given: for each mixed operation its architecture weights (at least ops,).
        dtype: of the net's numbers.
    """
    odd = []
    for one, logits in zip(mixed, given, strict=True):
        if one.weights is None:
            continue
        measured = torch.tensor(one.weights, dtype=torch.float64, device="cpu")
        shares = logits.detach().cpu().double()[: len(measured)].softmax(0)
        if _differ(measured, shares, coarse=dtype.itemsize < 4):
            odd.append((one, measured, shares))
    if not odd:
        return []
    one, measured, shares = odd[0]
    return [
        f"{some([each.path for each, _, _ in odd])}: the net mixes {_listed(one, measured)}, but the softmax of the "
        f"given weights is {_listed(one, shares)}: check which weights belong to which place; or the net mixes by "
        "something else than their softmax, such as one with a temperature"
    ]


def some(paths: Sequence[str]) -> str:
    """The first path, and how many more there are."""
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def _differ(measured: Tensor, given: Tensor, *, coarse: bool) -> bool:
    """Among the candidates that take part: one that the net leaves out, as it may do with zeros, shows no share."""
    part = measured > 0
    if part.sum() < 2:
        return int(measured.argmax()) != int(given.argmax())
    one, other = (values[part] / values[part].sum() for values in (measured, given))
    far, reverse = (COARSE, COARSE) if coarse else (FAR, REVERSED)
    if float((one - other).abs().max()) > far:
        return True
    gaps, others = (values[:, None] - values[None, :] for values in (one, other))
    return bool(((gaps > reverse) & (others < -reverse)).any())


def _listed(one: MixedOp, shares: Tensor) -> str:
    return ", ".join(f"{name} {share:.3g}" for name, share in zip(one.names, shares.tolist(), strict=True))
