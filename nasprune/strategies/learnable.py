"""What a strategy says where groups lack what it learns from."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nasprune.errors import InputError
from nasprune.graph.model import CoupledGroup


def learnable(groups: Sequence[CoupledGroup], having: Collection[str], what: str) -> tuple[str, ...]:
    """Notes that name the groups a strategy learns nothing of; none where there are none.

    Args:
        having: names of the groups that have what it learns from. what: that, in words, such as "a batch norm".

    Raises:
        InputError: no group has it.
    """
    lacking = [group.name for group in groups if group.name not in having]
    if groups and len(lacking) == len(groups):
        raise InputError(
            f"the strategy learns from {what}, which none of the {len(lacking)} groups of channels has (the first is "
            f"{lacking[0]!r}); take a strategy that needs none, such as 'soft' or 'l0'"
        )
    if not lacking:
        return ()
    return (f"Groups without {what}, which were cut only where the budget asked for more: {', '.join(lacking)}.",)
