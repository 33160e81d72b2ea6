"""The shares that removed candidates still hold: given to those that stay, and told where that is not possible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.common.outputs import tensors_of
from nasprune.common.randomness import states
from nasprune.common.untouched import untouched
from nasprune.errors import InputError
from nasprune.supernet.cut.removal import OFF
from nasprune.supernet.cut.scaled import scale
from nasprune.supernet.find.alpha_slots import Slot
from nasprune.supernet.find.mixed_ops import SCALES
from nasprune.supernet.find.mixture import NoGradientError, NotMixedError, shares
from nasprune.supernet.find.probe import Measure, backward

LEAST = 1e-3
"""A share that is worth telling, and how far two measurements of one share may be apart."""
DRAWS = 4
"""Forward passes of a net that draws its mixture, of which the largest share counts: one may draw next to nothing."""


@dataclass(frozen=True)
class Loss:
    """What a choice lost.

    places: for each mixed operation the paths of its candidates; gone: numbers of those that went.
    slots: where their architecture weights are, if that is known; columns: which of them belong to those that went.
    """

    name: str
    places: tuple[tuple[str, ...], ...]
    gone: tuple[int, ...]
    slots: tuple[Slot, ...]
    columns: tuple[int, ...]


Shares = Mapping[tuple[str, ...], tuple[float, ...]]
"""Candidates of a mixed operation -> the share of those that went, in one or several forward passes, where measured."""


def switch_off(net: nn.Module, inputs: tuple[Tensor, ...], losses: Sequence[Loss]) -> tuple[str, ...]:
    """Gives the share of removed candidates to those that stay, in place.

    Their architecture weights are set so low that a softmax gives them nothing. Where these are unknown, or that does
    not take their share away because the mixture is no softmax, they stay as they are, and what is left is `Scaled`.

    Returns:
        Sentences on candidates that are scaled, and on shares that removed ones keep.
    """
    if not losses:
        return ()
    before = [[slot.read(net).detach().clone() for slot in loss.slots] for loss in losses]
    for loss in losses:
        _set_off(net, loss)
    left = _left(net, inputs, losses)
    again = [loss for loss in losses if not loss.slots or left is None or _most(loss, left) > LEAST]
    if any(loss.slots for loss in again):
        for loss, values in zip(losses, before, strict=True):
            if loss in again:
                _restore(net, loss, values)
        left = _left(net, inputs, losses)
        if left is None:  # the net does not run in either case
            for loss in losses:
                _set_off(net, loss)
    known = left or {}
    kept = {loss.name: _most(loss, known) for loss in again if not _scaled(net, loss, known)}
    return (*_told_scaled(again, kept, known), *_notes(again, kept))


def _most(loss: Loss, shares: Shares) -> float:
    """The largest share that what went has at any of the places, and in any forward pass."""
    return max((share for ops in loss.places for share in shares.get(ops, ())), default=0.0)


def _scaled(net: nn.Module, loss: Loss, shares: Shares) -> bool:
    """Scales what stays of a choice so that it has the whole mixture; whether its shares allow it."""
    known = [shares.get(ops, ()) for ops in loss.places]
    if not all(some and max(some) - min(some) <= LEAST and max(some) < 1 - LEAST for some in known):
        return False
    for ops, some in zip(loss.places, known, strict=True):
        scale(net, ops, loss.gone, 1 / (1 - some[0]))
    return True


def _set_off(net: nn.Module, loss: Loss) -> None:
    with torch.no_grad():
        for slot in loss.slots:
            slot.read(net)[list(loss.columns)] = OFF


def _restore(net: nn.Module, loss: Loss, values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for slot, value in zip(loss.slots, values, strict=True):
            slot.read(net).copy_(value)


def _left(net: nn.Module, inputs: tuple[Tensor, ...], losses: Sequence[Loss]) -> Shares | None:
    """What removed candidates hold, measured; `None` where the net fails or gives numbers that are not finite."""
    look = _look(net, inputs)
    if not look.sound:
        return None
    gone = {ops: loss.gone for loss in losses for ops in loss.places}
    found: dict[tuple[str, ...], tuple[float, ...]] = {}
    for seed in range(DRAWS) if look.draws else (None,):
        for ops, share in _once(net, inputs, gone, seed).items():
            found[ops] = (*found.get(ops, ()), share)
    return found


def _once(
    net: nn.Module, inputs: tuple[Tensor, ...], gone: Mapping[tuple[str, ...], tuple[int, ...]], seed: int | None
) -> dict[tuple[str, ...], float]:
    """The shares in one forward pass. seed: as `backward` takes it."""
    found: dict[tuple[str, ...], float] = {}
    for normalise in (False, True):
        open_ = [ops for ops in gone if ops not in found]
        if not open_:
            break
        try:
            paths = [path for ops in open_ for path in ops]
            with backward(net, inputs, paths, normalise=normalise, seed=seed) as measure:
                for ops in open_:
                    share = _measured(ops, gone[ops], measure)
                    if share is not None:
                        found[ops] = share
        except InputError:  # it runs in eval mode only
            break
    return found


def _measured(ops: Sequence[str], gone: Sequence[int], measure: Measure) -> float | None:
    for size in SCALES:
        try:
            gradients = measure(size)
            mixed = shares({path: gradients[path] for path in ops if path in gradients})
        except NoGradientError:
            continue
        except (NotMixedError, ValueError):  # or none of them ran
            return None
        return sum(mixed.get(ops[k], 0.0) for k in gone) if mixed is not None else None
    return None


@dataclass(frozen=True)
class _Look:
    """sound: whether a net gives finite numbers. draws: whether it draws random ones on the way."""

    sound: bool
    draws: bool = False


def _look(net: nn.Module, inputs: tuple[Any, ...]) -> _Look:
    try:
        with untouched(net), torch.no_grad():
            before = states(net)
            outputs = tensors_of(net(*inputs))
            draws = states(net) != before
    except Exception:  # a module's own code may raise anything
        return _Look(False)
    return _Look(all(bool(output.isfinite().all()) for output in outputs), draws)


def _told_scaled(losses: Sequence[Loss], kept: Mapping[str, float], shares: Shares) -> Iterator[str]:
    found = [(loss.name, _most(loss, shares)) for loss in losses if loss.name not in kept]
    found = [(name, share) for name, share in found if share > LEAST]
    if found:
        name, share = found[0]
        others = f", and of {len(found) - 1} more choices," if len(found) > 1 else ""
        yield (
            f"What stays of {name!r}{others} is scaled to make up the whole mixture, here by {1 / (1 - share):.3g}; "
            "this factor stays as it is when shares are trained on. Where the mixture is a softmax, `weights=` that "
            "return a tensor which the net holds, or a row or column of one, make factors needless."
        )


def _notes(losses: Sequence[Loss], left: Mapping[str, float]) -> Iterator[str]:
    unknown = [(one.name, left[one.name]) for one in losses if not one.slots and left.get(one.name, 0.0) > LEAST]
    other = [(one.name, left[one.name]) for one in losses if one.slots and left.get(one.name, 0.0) > LEAST]
    if unknown:
        yield (
            f"{_told(unknown)}, because that is not the same in every forward pass, or is all of it, and where the net "
            "holds their architecture weights is unknown; give `weights=`, which must return a tensor that the net "
            "holds, or a row or column of one, and nothing computed from it (to `Supernet.from_model`, whose result a "
            "factory for the command line may return)."
        )
    if other:
        yield (
            f"{_told(other)}, because the mixture is no softmax of the architecture weights, which therefore stay as "
            "they are, and the share is not the same in every forward pass, or is all of it; train it on."
        )


def _told(left: Sequence[tuple[str, float]]) -> str:
    name, share = left[0]
    others = f", and {len(left) - 1} more choices" if len(left) > 1 else ""
    return f"The candidates removed from {name!r} keep {share:.0%} of the mixture{others}, as zeros"
