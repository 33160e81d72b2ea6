"""From any module to the structure of a supernet: what the probe finds, with the names that the user gives it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from glob import escape

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nasprune.errors import InputError
from nasprune.space.choices import OpChoice
from nasprune.supernet.find.aliases import separated
from nasprune.supernet.find.alpha_slots import find_slot
from nasprune.supernet.find.choices import EdgeWeights, Group, Place, Weights, edge_weight, tied, view
from nasprune.supernet.find.doubts import doubts, some
from nasprune.supernet.find.mixed import Findings, MixedOp
from nasprune.supernet.find.mixed_ops import find_mixed_ops
from nasprune.supernet.genotype.spaces import SupernetSpace
from nasprune.supernet.price.costs import price
from nasprune.supernet.structure.structure import Logits, Structure

Names = Sequence[str] | Callable[[Place], Sequence[str]]


def recognise(
    net: nn.Module,
    example_inputs: Tensor | tuple[Tensor, ...],
    choices: Sequence[str] | None,
    group: Group | None,
    weights: Weights | None,
    op_names: Names | None,
    space: SupernetSpace | None,
    edge_weights: EdgeWeights | None = None,
) -> Structure:
    """What `nasprune.Supernet.from_model` documents."""
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    if len(inputs) != 1 or inputs[0].ndim < 2 or len(inputs[0]) < 2:
        shapes = [tuple(value.shape) for value in inputs]
        raise InputError(
            f"expected one example input (n, ...) with n of at least 2, got shapes {shapes}; "
            "give for example torch.randn(2, 3, 32, 32)"
        )
    _check_numbers(net)
    found = _found(net, inputs, choices)
    mixed = _chosen(found, choices)
    notes = _reasons(found)
    if not mixed:
        raise InputError(
            "no mixed operations were found: modules that read one tensor and whose outputs are mixed by a weighted "
            f"sum; {'; '.join(notes[:3]) or 'nothing looked like it'}. Name them with `choices=`, for a command in a "
            "function that returns what nasprune.Supernet.from_model(net, inputs, choices=[...]) gives"
        )
    _check_not_shared(net, mixed, found)
    if space is not None:
        group = group or (lambda place: space.group(place.cell, place.index))
        op_names = op_names or _names_of(space)
        weights = weights or _weights_of(space, net, mixed)
    mixed = tuple(replace(one, names=_names(net, one, op_names)) for one in mixed)
    decided = tied(net, mixed, group)
    logits = {}
    if weights is None:
        notes += _drawn(mixed, found)
    else:
        given = [_given(net, one, len(one.ops), weights) for one in mixed]
        notes += doubts(mixed, given, inputs[0].dtype)
        logits = {choice.name: _logits(net, [given[n] for n in choice.places], choice) for choice in decided}
    prices = price(net, mixed, decided, tuple(inputs[0].shape))
    if edge_weights is not None:
        for one in mixed:
            edge_weight(net, one, edge_weights)
    return Structure(net, inputs, mixed, decided, prices, logits, space, tuple(notes), edge_weights)


def _reasons(found: Findings) -> list[str]:
    """Why what looked like candidates is none; what would be some if it was named is in one line."""
    others = [f"{path}: no choice: {reason}" for path, reason in found.rejected.items() if path not in found.unnamed]
    if not found.unnamed:
        return others
    first = next(iter(found.unnamed))
    names = [*(one.path for one in found.mixed), *found.unnamed.values()]
    globs = list(dict.fromkeys(re.sub(r"(?<![^.])\d+(?![^.])", "*", name) for name in names))
    listed = globs if len(globs) < len(set(names)) else list(dict.fromkeys(names))
    reason = f"{some(list(found.unnamed))}: no choice: {found.rejected[first]}, name them with choices={listed}"
    return [reason, *others]


def _check_numbers(net: nn.Module) -> None:
    """What is not a number hides mixtures, which are told by gradients, and scores."""
    spoilt = [name for name, value in net.named_parameters() if _has_nan(value)]
    if spoilt:
        more = f" and {len(spoilt) - 1} more parameters hold" if len(spoilt) > 1 else " holds"
        raise InputError(
            f"{spoilt[0]}{more} values that are no numbers (NaN): expected finite ones; load a state from before the "
            "training went wrong, or make the supernet anew"
        )


def _has_nan(value: Tensor) -> bool:
    return not (is_lazy(value) or value.is_meta) and bool(value.isnan().any())


def _found(net: nn.Module, inputs: tuple[Tensor, ...], globs: Sequence[str] | None) -> Findings:
    """What is recognised, and what the user names beside it: by a path, or by a glob where it is seen to be mixed."""
    found = find_mixed_ops(net, inputs)
    named = {
        path: path in (globs or ())
        for path, module in net.named_modules()
        if any(module.children())
        and any(_is_named(path, glob) for glob in globs or ())
        and not any(_related(path, one) for one in found.mixed)
    }
    return find_mixed_ops(net, inputs, named) if named else found


def _related(path: str, mixed: MixedOp) -> bool:
    """Whether the module at `path` is a mixed operation, is around one, or is a candidate or a part of one."""
    return path == mixed.path or any(f"{op}.".startswith(f"{path}.") or path.startswith(f"{op}.") for op in mixed.ops)


def _is_named(path: str, glob: str) -> bool:
    """Whether a glob is the path of a module, where a star stands for one name in it or a part of one."""
    names, parts = path.split("."), glob.split(".")
    return len(names) == len(parts) and all(fnmatchcase(name, part) for name, part in zip(names, parts, strict=True))


def _chosen(found: Findings, globs: Sequence[str] | None) -> tuple[MixedOp, ...]:
    if globs is None:
        return found.mixed
    paths = {one.path for one in found.mixed}
    globs = [escape(name) if name in paths else name for name in globs]
    for glob in globs:
        if not any(fnmatchcase(one.path, glob) for one in found.mixed):
            known = ", ".join(one.path for one in found.mixed[:5])
            reasons = [f"{path}: {reason}" for path, reason in found.rejected.items() if _is_named(path, glob)]
            why = "; ".join(reasons[:2]) or "no module that holds others has this path"
            raise InputError(
                f"`choices` names {glob!r}, which holds no mixed operation: {why}. Recognised: {known or 'none'}"
            )
    return tuple(one for one in found.mixed if any(fnmatchcase(one.path, glob) for glob in globs))


def _check_not_shared(net: nn.Module, mixed: Sequence[MixedOp], found: Findings) -> None:
    for op in (op for one in mixed for op in one.ops if op in found.shared):
        others = ", ".join(found.shared[op][:3])
        raise InputError(
            f"the candidate {op} is the very module that the net has as {others}: what is done to one is done to all; "
            "give every place a module of its own, made anew, or before this call by "
            f"`{separated(net, op, found.shared[op])}`"
        )


def _drawn(mixed: Sequence[MixedOp], found: Findings) -> list[str]:
    paths = [one.path for one in mixed if one.path in found.drawn]
    if not paths:
        return []
    return [
        f"{some(paths)}: the net draws the shares of the candidates at random in every forward pass, so they are "
        "unknown; give `weights=` for what needs them"
    ]


def _weights_of(space: SupernetSpace, net: nn.Module, mixed: Sequence[MixedOp]) -> Weights | None:
    """The space's own way to find architecture weights, where the net is the space's own."""

    def weights(place: Place) -> Tensor:
        return space.weights(place.net, place.cell, place.index)

    try:
        weights(view(net, mixed[0]))
    except (AttributeError, InputError):
        return None
    return weights


def _names_of(space: SupernetSpace) -> Names:
    """The names of the candidates by the kind of their cell."""

    def names(place: Place) -> Sequence[str]:
        kind = space.group(place.cell, place.index).partition("/")[0]
        ops = space.cells[kind].ops
        return ops if len(ops) == len(place.op_names) else place.op_names

    return names


def _names(net: nn.Module, mixed: MixedOp, given: Names | None) -> tuple[str, ...]:
    if given is None:
        return mixed.names
    names = tuple(given(view(net, mixed)) if callable(given) else given)
    if len(names) != len(mixed.ops) or len(set(names)) != len(names):
        raise InputError(
            f"`op_names` must be {len(mixed.ops)} distinct names for {mixed.path!r}, got {list(names)}; "
            "give a function where mixed operations differ"
        )
    return names


def _logits(net: nn.Module, given: Sequence[Tensor], choice: OpChoice) -> Logits:
    slots = [find_slot(net, tensor) for tensor in given]
    known = tuple(dict.fromkeys(slot for slot in slots if slot is not None))
    count = len(choice.ops)
    return Logits(known if None not in slots else (), tuple(range(count)), given[0].detach()[:count].clone())


def _given(net: nn.Module, mixed: MixedOp, count: int, weights: Weights) -> Tensor:
    try:
        given = weights(view(net, mixed))
    except Exception as error:
        raise InputError(f"`weights` failed on {mixed.path!r}: {type(error).__name__}: {error}") from error
    if not isinstance(given, Tensor) or given.ndim != 1 or len(given) < count:
        got = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise InputError(f"`weights` must give a tensor of {count} numbers for {mixed.path!r}, got {got}")
    return given
