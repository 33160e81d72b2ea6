"""The shares that removed candidates still hold: taken from them where that is possible, and told where it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.common.outputs import tensors_of
from nasprune.common.randomness import states
from nasprune.common.untouched import untouched
from nasprune.errors import InputError
from nasprune.supernet.cut.removal import OFF
from nasprune.supernet.find.alpha_slots import Slot
from nasprune.supernet.find.mixed_ops import SCALES
from nasprune.supernet.find.mixture import NoGradientError, NotMixedError, shares
from nasprune.supernet.find.probe import Measure, backward

LEAST = 1e-3
"""A share that is worth telling."""
DRAWS = 4
"""Forward passes of a net that draws its mixture, of which the largest share counts: one may draw next to nothing."""


@dataclass(frozen=True)
class Loss:
    """What a choice lost. ops: the paths of all of its candidates; gone: numbers of those that went.

    slots: where their architecture weights are, if that is known; columns: which of them belong to those that went.
    """

    name: str
    ops: tuple[str, ...]
    gone: tuple[int, ...]
    slots: tuple[Slot, ...]
    columns: tuple[int, ...]


Shares = Mapping[str, float]
"""Choice -> the share of the mixture that its removed candidates have, where it can be measured."""


def switch_off(net: nn.Module, inputs: tuple[Tensor, ...], losses: Sequence[Loss]) -> tuple[str, ...]:
    """Sets the architecture weights of removed candidates so low that a softmax gives them nothing, in place.

    Where that does not take their share away, because the mixture is no softmax, the weights stay as they are.

    Returns:
        Sentences on the shares that removed candidates keep.
    """
    if not losses:
        return ()
    before = [[slot.read(net).detach().clone() for slot in loss.slots] for loss in losses]
    for loss in losses:
        _set_off(net, loss)
    left = _left(net, inputs, losses)
    again = [number for number, one in enumerate(losses) if left is None or left.get(one.name, 0.0) > LEAST]
    if not any(losses[number].slots for number in again):
        return _notes(losses, left or {})
    for number in again:
        _restore(net, losses[number], before[number])
    restored = _left(net, inputs, losses)
    if restored is None:  # the net does not run in either case
        for loss in losses:
            _set_off(net, loss)
    return _notes(losses, restored or {})


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
    if not look.draws:
        return _once(net, inputs, losses)
    found: dict[str, float] = {}
    for seed in range(DRAWS):
        for name, share in _once(net, inputs, losses, seed).items():
            found[name] = max(share, found.get(name, 0.0))
    return found


def _once(net: nn.Module, inputs: tuple[Tensor, ...], losses: Sequence[Loss], seed: int | None = None) -> Shares:
    """The shares in one forward pass. seed: as `backward` takes it."""
    found: dict[str, float] = {}
    for normalise in (False, True):
        open_ = [loss for loss in losses if loss.name not in found]
        if not open_:
            break
        try:
            paths = [path for loss in open_ for path in loss.ops]
            with backward(net, inputs, paths, normalise=normalise, seed=seed) as measure:
                for loss in open_:
                    share = _measured(loss, measure)
                    if share is not None:
                        found[loss.name] = share
        except InputError:  # it runs in eval mode only
            break
    return found


def _measured(loss: Loss, measure: Measure) -> float | None:
    for scale in SCALES:
        try:
            gradients = measure(scale)
            mixed = shares({path: gradients[path] for path in loss.ops if path in gradients})
        except NoGradientError:
            continue
        except (NotMixedError, ValueError):  # or none of them ran
            return None
        return sum(mixed.get(loss.ops[k], 0.0) for k in loss.gone) if mixed is not None else None
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


def _notes(losses: Sequence[Loss], left: Shares) -> tuple[str, ...]:
    unknown = {one.name: left[one.name] for one in losses if not one.slots and left.get(one.name, 0.0) > LEAST}
    other = {one.name: left[one.name] for one in losses if one.slots and left.get(one.name, 0.0) > LEAST}
    notes = []
    if unknown:
        notes.append(
            f"{_told(unknown)}, because where the net holds their architecture weights is unknown; give `weights=`, "
            "which must return a tensor that the net holds, or a row or column of one, and nothing computed from it "
            "(to `Supernet.from_model`, whose result a factory for the command line may return)."
        )
    if other:
        notes.append(
            f"{_told(other)}, because the mixture is no softmax of the architecture weights, which therefore stay as "
            "they are; scale what stays yourself, or train on."
        )
    return tuple(notes)


def _told(left: Shares) -> str:
    name, share = next(iter(left.items()))
    others = f", and {len(left) - 1} more choices" if len(left) > 1 else ""
    return f"The candidates removed from {name!r} keep {share:.0%} of the mixture{others}, as zeros"
