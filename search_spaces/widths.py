"""The width of every free group on a grid that hardware likes, and every removable block.

Counts are multiples of `divisor`; a narrow group gets a finer grid so that it has about eight options (the rounding of
Howard et al. 2017, arXiv:1704.04861, keeps 8 everywhere). The full width is always an option.
"""

import math
from collections.abc import Iterable
from fnmatch import fnmatchcase

from nasprune import BlockChoice, CoupledGroup, InputError, ModelGraph, SearchSpace, WidthChoice

FEWEST_OPTIONS = 8


def build(
    graph: ModelGraph,
    *,
    divisor: int = 8,
    min_share: float = 0.1,
    blocks: bool = True,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
) -> SearchSpace:
    """One `WidthChoice` for each free group and one `BlockChoice` for each free block.

    Args:
        graph: the traced model.
        divisor: kept counts are multiples of it where the group is wide enough, at least 1.
        min_share: least share of a group that may stay, in [0, 1].
        blocks: whether blocks may be dropped.
        include: globs on group and block names; when given, only what one of them matches may change.
        exclude: globs on group and block names that must not change; keeps the blocks around an excluded group.

    Raises:
        InputError: an option is out of range, or a glob matches no group and no block.
    """
    include, exclude = tuple(include), tuple(exclude)
    if divisor < 1 or not 0 <= min_share <= 1:
        raise InputError(f"`divisor` must be at least 1 and `min_share` in [0, 1], got {divisor} and {min_share}")
    names = [item.name for item in (*graph.groups, *graph.blocks)]
    for glob in (*include, *exclude):
        if not any(fnmatchcase(name, glob) for name in names):
            shown = ", ".join(names[:8])
            raise InputError(f"{glob!r} matches no group and no block; their names are {shown}, … (`nasprune inspect`)")

    def wanted(name: str) -> bool:
        return (not include or _matches(name, include)) and not _matches(name, exclude)

    choices: list[WidthChoice | BlockChoice] = []
    for group in graph.free_groups:
        options = kept_counts(group, divisor, min_share)
        if wanted(group.name) and len(options) > 1:
            choices.append(WidthChoice(group.name, options))
    if blocks:
        for block in graph.free_blocks:
            if wanted(block.name) and not any(_matches(inner, exclude) for inner in block.groups):
                choices.append(BlockChoice(block.name))
    return SearchSpace(tuple(choices))


def kept_counts(group: CoupledGroup, divisor: int, min_share: float) -> tuple[int, ...]:
    """The counts that the group may keep, ascending; the last is its width."""
    while divisor > 1 and group.width < FEWEST_OPTIONS * divisor:
        divisor //= 2
    step = math.lcm(divisor, group.multiple_of)
    if group.width <= step:
        step = group.multiple_of
    least = max(step, math.ceil(min_share * group.width / step) * step)
    return (*range(least, group.width, step), group.width)


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
