"""Readings of the user's code under which a cut that fails may succeed: what to try, in which order.

Where code fixes a size, it may be that a module's attribute holds it, that a split axis should lose its heads instead
of the features of each, that the size was read off another tensor, or that a number was computed from it. All of these
are guesses; only a trial cut that runs and verifies makes one of them a fact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice

from torch import nn
from torch.fx import Node

from nasprune.cost.sizes import Extent, Sizes
from nasprune.cut.attributes import configured, integers
from nasprune.graph.analysis import Analysis
from nasprune.graph.hints import AttributeHint, AxisOf, Hints, ScaleHint
from nasprune.graph.model import ModelGraph
from nasprune.graph.ops.shapes import Reshape
from nasprune.graph.program import code, operator, shape_of, site

SIZED = frozenset(
    {
        *Reshape.targets,
        "split",
        "split_with_sizes",
        "slice",
        "narrow",
        "expand",
        "broadcast_to",
        "constant_pad_nd",
        "pad",
    }
)  # operations that take sizes
POWERS = (-0.5, -1.0, 0.5, 1.0, -0.25)
LINKS = 3  # how many axes are tried one by one as the place where a size was read
PLAIN, SUBSETS = 2, 6  # how many selections of attributes are tried at first, and in all


@dataclass(frozen=True)
class Reading:
    """What is tried for each module, by its path. scaled: the same, with numbers that were computed from sizes."""

    sized: Mapping[str, Hints]
    scaled: Mapping[str, Hints]


@dataclass(frozen=True)
class Place:
    """Where cuts fail. lines: of code that may insist on a size. modules: paths of those that ran them."""

    lines: frozenset[str]
    modules: tuple[str, ...]

    def without(self, modules: frozenset[str]) -> Place:
        return replace(self, modules=tuple(path for path in self.modules if path not in modules))

    def with_more(self, modules: Iterable[str]) -> Place:
        return replace(self, modules=tuple(dict.fromkeys((*self.modules, *modules))))


@dataclass(frozen=True)
class _Axis:
    """An axis with channels. entering: of what its module takes. listed: whether a line of the place gives its size."""

    where: AxisOf
    extent: Extent
    entering: bool
    listed: bool


def joined(hints: Iterable[Hints]) -> Hints:
    return reduce(Hints.with_more, hints, Hints())


def readings(found: Analysis, part: nn.Module, place: Place, *, links: bool, all_of_them: bool) -> Iterator[Reading]:
    """What to try, the least far-fetched first.

    Args:
        part: the traced model or scope.
        links: whether sizes are those of other tensors.
        all_of_them: whether single attributes are tried as well, and not only all that fit.
    """
    seen: list[Mapping[str, Hints]] = []
    text = "\n".join({code(node) for node in found.graph.program.nodes if site(node) in place.lines})
    for base in _bases(found, place, links=links):
        graph = found.again(found.hints.with_more(joined(base.values()))).graph
        axes = {path: _axes(graph, path, place) for path in place.modules}
        scales = {path: Hints(scales=_scales(graph, path, axes[path])) for path in place.modules}
        attributes = {path: _attributes(part, path, axes[path], text) for path in place.modules}
        for chosen in islice(_selections(attributes), SUBSETS if all_of_them else PLAIN):
            sizes = {path: base.get(path, Hints()).with_more(Hints(attributes=chosen[path])) for path in place.modules}
            reading = Reading(sizes, {path: hints.with_more(scales[path]) for path, hints in sizes.items()})
            if reading.sized not in seen:
                seen.append(reading.sized)
                yield reading


def _bases(found: Analysis, place: Place, *, links: bool) -> Iterator[Mapping[str, Hints]]:
    """The ways to share channels: heads first, which changes no other number; then features."""
    heads = {path: Hints(splits=_splits(found.graph, path, place)) for path in place.modules}
    if not links:
        yield heads
        yield {}
        return
    for linked in _links(found.graph, place):
        yield linked
        yield {path: hints.with_more(heads[path]) for path, hints in linked.items()}


def owner(graph: ModelGraph, node: Node) -> str:
    """Path of the module that ran an operation."""
    return graph.program.owner(node).partition("@")[0]


def _inside(path: str, other: str) -> bool:
    return not path or other == path or other.startswith(f"{path}.")


def _splits(graph: ModelGraph, path: str, place: Place) -> dict[str, int]:
    """Heads for every reshape of a module that makes more axes than there were."""
    return {
        node.name: -2
        for node in graph.program.nodes
        if splits_axis(node) and owner(graph, node) == path and site(node) in place.lines
    }


def splits_axis(node: Node) -> bool:
    """Whether an operation reshapes a tensor to more axes than it has."""
    if node.op != "call_function" or operator(node) not in Reshape.targets:
        return False
    return len(shape_of(node) or ()) > len(shape_of(node.all_input_nodes[0]) or ())


def _axes(graph: ModelGraph, path: str, place: Place) -> list[_Axis]:
    """The axes with channels of what a module takes or works on, those that its lines give a size to first."""
    sizes = Sizes(graph)
    inside = [node for node in graph.program.nodes if node.op == "call_function" and _inside(path, owner(graph, node))]
    made = set(inside)
    values: dict[Node, bool] = {}
    for node in inside:
        own = owner(graph, node) == path
        for source in node.all_input_nodes:
            if own or source not in made:
                values.setdefault(source, False)
        if not own and any(user in made and owner(graph, user) != owner(graph, node) for user in node.users):
            values.setdefault(node, False)
        if own:
            origin = node.all_input_nodes[0] if operator(node) == "getitem" else node
            values[node] = site(origin) in place.lines and operator(origin) in SIZED
    found = [
        _Axis(AxisOf(value.name, axis), extent, entering=value not in made, listed=listed)
        for value, listed in values.items()
        if value.name not in graph.program.params and shape_of(value) is not None
        for axis, extent in enumerate(sizes.of(value))
        if isinstance(extent, Extent)
    ]
    return sorted(found, key=lambda axis: not axis.listed)


def _attributes(part: nn.Module, path: str, axes: Sequence[_Axis], text: str) -> list[AttributeHint]:
    """Attributes that equal the size of an axis beyond doubt: one that a line gives a size to, or the only one.

    text: the lines; of a configuration, only what they name is meant.
    """
    found = []
    module = part.get_submodule(path)
    named = ((place, value) for place, value in configured(module) if f"{place[0]}.{place[1]}" in text)
    for where, value in (*integers(module), *named):
        equal = [axis for axis in axes if axis.extent.dense == value]
        for matches in ([axis for axis in equal if axis.listed], equal):
            if len({axis.extent for axis in matches}) == 1:
                found.append(AttributeHint(path, where, matches[0].where))
                break
    return found


def _selections(attributes: Mapping[str, Sequence[AttributeHint]]) -> Iterator[dict[str, tuple[AttributeHint, ...]]]:
    """All attributes, none, all but those of one name, those of one name."""
    names = list(dict.fromkeys(one.name for found in attributes.values() for one in found))
    choose: list[Callable[[str], bool]] = [lambda _: True, lambda _: False]
    if len(names) > 1:
        choose += [lambda name, left=left: name != left for left in names]  # type: ignore[misc]
        choose += [lambda name, only=only: name == only for only in names]  # type: ignore[misc]
    for chosen in choose:
        yield {path: tuple(one for one in found if chosen(one.name)) for path, found in attributes.items()}


def _links(graph: ModelGraph, place: Place) -> Iterator[Mapping[str, Hints]]:
    """Each module's axes of given size linked with an axis of what it reads: the first, the second, all."""
    by_module = {path: _linkable(graph, path, place) for path in place.modules}
    most = max((len(found) for found in by_module.values()), default=0)
    for number in range(min(most, LINKS)):
        yield {path: Hints(links=tuple(found[number : number + 1] or found[-1:])) for path, found in by_module.items()}
    if most > 1:
        yield {path: Hints(links=tuple(found)) for path, found in by_module.items()}


def _linkable(graph: ModelGraph, path: str, place: Place) -> list[tuple[AxisOf, ...]]:
    """Links of a module, those with what enters it first; axes of one extent count once.

    Axes that are frozen are not linked where others can be cut: a part of fixed size may stand beside them.
    """
    axes = _axes(graph, path, place)
    own = list({axis.extent: axis for axis in axes if axis.listed}.values())
    own = [one for one in own if any(graph.groups[number].free for number, _ in one.extent.terms)] or own
    others: dict[Extent, _Axis] = {}
    for axis in sorted(axes, key=lambda axis: not axis.entering):
        related = any(_divides(axis.extent.dense, one.extent.dense) for one in own)
        if related and any(axis.extent != one.extent for one in own):
            others.setdefault(axis.extent, axis)
    return [(other.where, *(one.where for one in own)) for other in others.values()]


def _divides(a: int, b: int) -> bool:
    return a % b == 0 or b % a == 0


def _scales(graph: ModelGraph, path: str, axes: Sequence[_Axis]) -> tuple[ScaleHint, ...]:
    """Numbers in a module's products and quotients that are a power of the size of an axis, the last before them."""
    order = {node.name: number for number, node in enumerate(graph.program.nodes)}
    found = []
    for node in graph.program.nodes:
        if node.op != "call_function" or owner(graph, node) != path or operator(node) not in ("mul", "div"):
            continue
        numbers = [arg for arg in node.args if isinstance(arg, int | float) and not isinstance(arg, bool)]
        near = sorted(axes, key=lambda axis: (order[node.name] - order[axis.where.node]) % len(order))
        matches = [
            ScaleHint(node.name, axis.where, power)
            for number in numbers
            for power in POWERS
            for axis in near
            if number > 0 and number != 1 and abs(axis.extent.dense**power / number - 1) < 1e-6
        ]
        found += matches[:1]
    return tuple(found)
