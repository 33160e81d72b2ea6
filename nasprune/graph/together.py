"""An order of a program in which the uses of a shared layer follow each other, where that is possible.

Heads of detectors run on every level of a pyramid, and the two halves of a siamese network on two images. A layer that
runs several times can be changed at once only before the first of these runs, when what all of them read is known.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch.fx import Node

from nasprune.graph.program import Program

Uses = tuple[Node, ...]


@dataclass(frozen=True)
class Gathered:
    """nodes: the live nodes of a program in another order. together: the uses that follow each other there."""

    nodes: tuple[Node, ...]
    together: frozenset[Uses]


def gathered(program: Program, groups: Collection[Uses]) -> Gathered:
    """Moves operations behind each other as late as needed.

    A group stays as it is where a member needs another one, and so does one of two that need each other.
    """
    apart = _apart(program, groups)
    group_of = {node: group for group in groups if group in apart for node in group}
    order: list[Node] = []
    done: set[Node] = set()

    def ready(nodes: Sequence[Node]) -> bool:
        return all(program.waits_for[node] <= done for node in nodes)

    waiting = list(program.live)
    while waiting:
        left: list[Node] = []
        for node in waiting:
            members = group_of.get(node, (node,))
            if node in done:
                continue
            if ready(members):
                order += members
                done.update(members)
            else:
                left.append(node)
        if len(left) == len(waiting):  # groups need each other: the first that waits is given up
            stuck = next(group_of[node] for node in left if node in group_of and ready((node,)))
            for node in stuck:
                del group_of[node]
        waiting = left
    return Gathered(tuple(order), frozenset(group_of.values()))


def _apart(program: Program, groups: Collection[Uses]) -> set[Uses]:
    """The groups of which no member needs another one."""
    group_of = {node: group for group in groups for node in group}
    before: dict[Node, frozenset[Uses]] = {}  # groups of which a member runs before, because it has to
    apart = set(groups)
    for node in program.live:
        waits = program.waits_for[node]
        own = frozenset(group_of[source] for source in waits if source in group_of)
        before[node] = own.union(*(before[source] for source in waits))
        if group_of.get(node) in before[node]:
            apart.discard(group_of[node])
    return apart
