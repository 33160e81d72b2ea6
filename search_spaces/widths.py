"""The width of every free group on a grid that hardware likes, and every removable block.

By default counts are multiples of 8, and a narrow group gets a finer grid so that it has about eight options (the
rounding of Howard et al. 2017, arXiv:1704.04861, keeps 8 everywhere). A `divisor` that is given is kept everywhere: a
group that has no smaller multiple of it stays whole. The full width is always an option. What `multiple_of` asks for is
kept by every width that the result has, the whole ones too, or refused.
"""

import math
from collections.abc import Iterable
from fnmatch import fnmatchcase
from glob import escape

from nasprune import BlockChoice, CoupledGroup, InputError, ModelGraph, SearchSpace, WidthChoice

DIVISOR = 8
FEWEST_OPTIONS = 8


def build(
    graph: ModelGraph,
    *,
    divisor: int | None = None,
    min_share: float = 0.1,
    blocks: bool = True,
    multiple_of: int | str | Iterable[int | str] = (),
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
) -> SearchSpace:
    """One `WidthChoice` for each free group and one `BlockChoice` for each free block.

    Args:
        graph: the traced model.
        divisor: kept counts are multiples of it, at least 1; `None` for 8, and finer in narrow groups.
        min_share: least share of a group that may stay, in [0, 1].
        blocks: whether blocks may be dropped.
        multiple_of: a number that all widths are to be multiples of, or "GLOB=NUMBER" for the groups that a module
            at or below such a path is cut with; of several that name a group the last counts.
        include: one or several paths of groups, blocks and modules, or globs on them; when given, only what one of them
            matches may change: blocks so called or below, and groups that a module so called or below is cut with.
        exclude: such globs of what must not change; the blocks around an excluded group stay, too.

    Raises:
        InputError: an option is out of range, a group's width is no multiple of what it is asked for, or a glob
            matches no group, no block and no module that belongs to one.
    """
    include, exclude = _globs(include), _globs(exclude)
    if (divisor is not None and divisor < 1) or not 0 <= min_share <= 1:
        raise InputError(f"`divisor` must be at least 1 and `min_share` in [0, 1], got {divisor} and {min_share}")
    touched = {group.name: _modules(group) for group in graph.groups}
    touched |= {block.name: {block.name} for block in graph.blocks}
    asked = _multiples(multiple_of)
    known = {above for paths in touched.values() for path in paths for above in _above(path)}
    include, exclude = _meant(include, known), _meant(exclude, known)
    for glob in (*include, *exclude, *(glob for glob, _ in asked if glob != "*")):
        if not any(_matches(path, (glob,)) for paths in touched.values() for path in paths):
            shown = ", ".join(list(touched)[:8])
            raise InputError(
                f"{glob!r} matches no group, no block and no module that belongs to one; groups and blocks are "
                f"{shown}, … (`nasprune inspect` lists them)"
            )
    spared = {name for name, paths in touched.items() if any(_matches(path, exclude) for path in paths)}

    def wanted(name: str) -> bool:
        asked = not include or any(_matches(path, include) for path in touched[name])
        return asked and name not in spared

    choices: list[WidthChoice | BlockChoice] = []
    refused: list[str] = []
    for group in graph.free_groups:
        number = _asked_of(touched[group.name], asked)
        if number is not None and wanted(group.name) and group.width % number:
            refused.append(f"{group.name} has {group.width} channels, which is no multiple of {number}")
        options = kept_counts(group, number or divisor, min_share)
        if wanted(group.name) and len(options) > 1:
            choices.append(WidthChoice(group.name, options))
    if refused:
        more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise InputError(
            f"`multiple_of` cannot be kept: {refused[0]}{more}; ask for less there, such as "
            f"{refused[0].partition(' ')[0]}=1, or exclude it"
        )
    if blocks:
        for block in graph.free_blocks:
            if wanted(block.name) and not any(inner in spared for inner in block.groups):
                choices.append(BlockChoice(block.name))
    return SearchSpace(tuple(choices))


def kept_counts(group: CoupledGroup, divisor: int | None, min_share: float) -> tuple[int, ...]:
    """The counts that the group may keep, ascending; the last is its width."""
    grid = divisor or DIVISOR
    while divisor is None and grid > 1 and group.width < FEWEST_OPTIONS * grid:
        grid //= 2
    step = math.lcm(grid, group.multiple_of)
    if divisor is None and group.width <= step:
        step = group.multiple_of
    least = max(step, math.ceil(min_share * group.width / step) * step)
    return (*range(least, group.width, step), group.width)


def _multiples(given: int | str | Iterable[int | str]) -> list[tuple[str, int]]:
    """Globs, each with its number; a number alone is for everything."""
    found = []
    for each in (given,) if isinstance(given, int | str) else given:
        glob, _, number = str(each).rpartition("=")
        if not number.strip().isdecimal() or int(number) < 1:
            raise InputError(f"`multiple_of` takes numbers from 1, or GLOB=NUMBER such as 'layer4.*=16', got {each!r}")
        found.append((glob.strip() or "*", int(number)))
    return found


def _asked_of(paths: set[str], asked: list[tuple[str, int]]) -> int | None:
    """The number that the last of the globs asks for."""
    fitting = [number for glob, number in asked if any(_matches(path, (glob,)) for path in paths)]
    return fitting[-1] if fitting else None


def _globs(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _meant(globs: tuple[str, ...], known: set[str]) -> tuple[str, ...]:
    """A name that is there stands for itself alone, also one with brackets or a star in it."""
    return tuple(escape(name) if name in known else name for name in globs)


def _modules(group: CoupledGroup) -> set[str]:
    """The group's name and the paths of all modules that a cut of it changes."""
    return {group.name} | {part.param.rpartition(".")[0] for part in group.slices}


def _matches(path: str, globs: tuple[str, ...]) -> bool:
    """Whether a glob matches the path, or one that the path lies below."""
    return any(fnmatchcase(each, glob) for each in _above(path) for glob in globs)


def _above(path: str) -> list[str]:
    """The paths of all modules that hold the one at `path`, and its own."""
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
