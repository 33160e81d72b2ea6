"""Architecture weights read and measured anew, after the values of a net have changed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from nasprune.supernet.cut.scaled import scaled_as
from nasprune.supernet.find.mixed import MixedOp
from nasprune.supernet.find.mixed_ops import find_mixed_ops
from nasprune.supernet.structure.structure import Structure


def scaled_as_saved(structure: Structure, names: Collection[str]) -> None:
    """Gives those candidates of the net a fixed factor, in place, that have one in a state_dict with `names`.

    Whether they have depends on what was known of the architecture weights when others went.
    """
    scaled_as(structure.net, [op for one in structure.mixed for op in one.ops], names)


def refreshed(structure: Structure) -> Structure:
    """The structure with what its net now holds.

    Architecture weights that the user computed outside of the net cannot be known any more. Where there are none, the
    shares of the candidates are measured again; `None` where that is not possible.
    """
    logits = {
        name: replace(known, values=known.of(structure.net).detach().clone())
        for name, known in structure.logits.items()
        if known.slots
    }
    mixed = structure.mixed
    if any(len(choice.ops) > 1 and choice.name not in logits for choice in structure.choices):
        mixed = _measured(structure)
    return replace(structure, logits=logits, mixed=mixed)


def _measured(structure: Structure) -> tuple[MixedOp, ...]:
    found: dict[str, float] = {}
    named = {one.path: True for one in structure.mixed if one.named and len(one.ops) > 1}
    for one in find_mixed_ops(structure.net, structure.inputs, named).mixed:
        found |= zip(one.ops, one.weights or (), strict=bool(one.weights))
    return tuple(
        replace(one, weights=tuple(found[op] for op in one.ops) if all(op in found for op in one.ops) else None)
        if len(one.ops) > 1
        else one
        for one in structure.mixed
    )
