"""What gradients tell about how outputs are combined: a weighted sum makes them multiples of one another."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

TOLERANCE = {2: 3e-2}
"""Bytes of a number -> how far a gradient may be off the common direction, relative to its length."""
EXACT = 1e-4
SMALL, LARGE = 1e-35, 1e35


class NotMixedError(Exception):
    """Not summed with one weight each; the message says why."""


class NoGradientError(NotMixedError):
    """All gradients vanish or overflow: nothing can be said."""


def shares(gradients: Mapping[str, Tensor]) -> dict[str, float] | None:
    """The weights of outputs that are all summed somewhere, in proportion: name -> share, which sum to one.

    Args:
        gradients: name -> gradient of one number with respect to that output, of equal shapes.

    Returns:
        `None` where weights of both signs have no share.

    Raises:
        NotMixedError: the gradients are no multiples of one another.
    """
    longest = max(gradients, key=lambda name: _length(gradients[name]))
    factors = _factors(gradients, gradients[longest])
    for name, factor in factors.items():
        if factor is None:
            cosine = _cosine(gradients[name], gradients[longest])
            raise NotMixedError(
                f"the gradients of {name!r} and {longest!r} differ in direction (cosine {cosine:.3f}), so they are "
                "not summed with one weight each; concatenated branches and separate heads look like this"
            )
    known = {name: factor for name, factor in factors.items() if factor is not None}
    if min(known.values()) < 0:
        return None
    total = sum(known.values())
    return {name: factor / total for name, factor in known.items()}


def owned_shares(gradients: Mapping[str, Tensor], owner: Tensor) -> dict[str, float]:
    """The weights of those outputs whose weighted sum is the output of the module that holds them.

    Raises:
        NotMixedError: fewer than two are such, or they are a plain sum, or their weights do not sum to one.
    """
    factors = {name: factor for name, factor in _factors(gradients, owner).items() if factor is not None}
    summed = {name: factor for name, factor in factors.items() if factor}
    if len(summed) < 2:
        raise NotMixedError("what the module that holds them gives is no weighted sum of them")
    plain = [name for name, factor in summed.items() if abs(factor - 1) < EXACT]
    if plain:
        raise NotMixedError(
            f"they are summed, but {plain[0]!r} has no weight; branches that are all kept look like this"
        )
    total = sum(summed.values())
    if min(summed.values()) < 0 or abs(total - 1) > 10 * EXACT:
        listed = ", ".join(f"{factor:.3g}" for factor in summed.values())
        raise NotMixedError(f"they are summed with weights {listed}, which are no shares of one")
    return {name: factor / total for name, factor in factors.items()}


def _factors(gradients: Mapping[str, Tensor], reference: Tensor) -> dict[str, float | None]:
    """Each gradient as a multiple of the reference; `None` where it is none."""
    longest = max(_length(value) for value in (*gradients.values(), reference))
    if not _length(reference) or not SMALL < longest < LARGE:
        raise NoGradientError("no gradient reaches them from what the net gives; the net is dead, or detaches it")
    return {name: _factor(gradient, reference) for name, gradient in gradients.items()}


def _factor(gradient: Tensor, reference: Tensor) -> float | None:
    if gradient.shape != reference.shape:
        return None
    one, other = gradient.double(), reference.double()
    factor = float((one * other).sum() / other.square().sum())
    allowed = TOLERANCE.get(gradient.element_size(), 1e-3) * _length(gradient)
    return factor if _length(one - factor * other) <= allowed else None


def _cosine(one: Tensor, other: Tensor) -> float:
    return float((one.double() * other.double()).sum()) / (_length(one) * _length(other))


def _length(value: Tensor) -> float:
    length = float(value.double().square().sum().sqrt())
    return length if math.isfinite(length) else math.inf
