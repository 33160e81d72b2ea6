"""Doubtful sizes settled: trial cuts under one reading of the user's code after the other, until one holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from nasprune.cut.compare import Match
from nasprune.cut.plan import PrunePlan
from nasprune.cut.remedies import Place, Reading, joined, owner, readings, splits_axis
from nasprune.cut.trial_plans import half_plan, uneven_plan
from nasprune.cut.tried import bisect, runs, trial
from nasprune.graph.analysis import Analysis
from nasprune.graph.hints import Hints
from nasprune.graph.model import CoupledGroup, ModelGraph
from nasprune.graph.program import site


@dataclass(frozen=True)
class Settled:
    """The reading that holds, and the groups that can be cut under none, with reasons."""

    found: Analysis
    failed: Mapping[str, str]


def settle_lines(stirred: nn.Module, part: nn.Module, found: Analysis) -> Settled:
    """Tries all that lines of code may insist on: alone, then linked with the sizes of others, then in more ways.

    stirred: a model without constant tensors, see `distinct`.
    """
    failing = _failing(stirred, found)
    for together, links, all_of_them in ((False, False, False), (True, True, True), (False, False, True)):
        if not failing:
            break
        before, places = found, failing.places(found)
        for place in [_union(places)] if together else places:
            found = _improved(stirred, found, place, partial(readings, part=part, links=links, all_of_them=all_of_them))
        failing = failing if found is before else _failing(stirred, found)
    return Settled(found, failing.reasons())


def _union(places: Sequence[Place]) -> Place:
    return Place(
        frozenset(line for place in places for line in place.lines),
        tuple(dict.fromkeys(path for place in places for path in place.modules)),
    )


@dataclass(frozen=True)
class _Case:
    """Groups that are in doubt because of the same lines of code. why: the reason why they cannot be cut as it is."""

    lines: frozenset[str]
    groups: tuple[CoupledGroup, ...]
    why: str = ""


@dataclass(frozen=True)
class _Failing:
    """What cannot be cut as the code is read now. tried: by trial cuts. frozen: by rules, where an axis is split."""

    tried: tuple[_Case, ...]
    frozen: tuple[_Case, ...]

    def __bool__(self) -> bool:
        return bool(self.tried or self.frozen)

    def places(self, found: Analysis) -> list[Place]:
        return [Place(case.lines, _modules(found, case.groups)) for case in (*self.tried, *self.frozen)]

    def reasons(self) -> dict[str, str]:
        return {
            group.name: f"its size seems to be fixed in the code at {', '.join(sorted(case.lines))} ({case.why})"
            for case in self.tried
            for group in case.groups
        }


def _failing(stirred: nn.Module, found: Analysis) -> _Failing:
    """Halves hide sizes that the code takes for one another: where all lose half, equal ones stay equal."""
    cases = _cases(found, [group for group in found.graph.groups if group.free])

    def plan(chosen: Sequence[_Case], make: Callable[..., PrunePlan] = half_plan) -> PrunePlan:
        return make(found.graph, [group.name for case in chosen for group in case.groups])

    why = bisect(cases, lambda chosen: runs(stirred, found.graph, plan(chosen))[1].reason)
    running = [case for case in cases if case not in why]
    why |= bisect(running, lambda chosen: trial(stirred, found.graph, plan(chosen)).reason)
    equal = [case for case in running if case not in why]
    why |= bisect(equal, lambda chosen: runs(stirred, found.graph, plan(chosen, uneven_plan))[1].reason)
    frozen = [group for group in found.graph.groups if group.frozen_because and _split(found, group)]
    return _Failing(tuple(replace(case, why=why[case]) for case in cases if case in why), tuple(_cases(found, frozen)))


def _cases(found: Analysis, groups: Iterable[CoupledGroup]) -> list[_Case]:
    cases: dict[frozenset[str], list[CoupledGroup]] = {}
    for group in groups:
        if group.name in found.doubts:
            lines = frozenset(site(found.graph.program.by_name[node]) for node in found.doubts[group.name])
            cases.setdefault(lines, []).append(group)
    return [_Case(lines, tuple(own)) for lines, own in cases.items()]


def _split(found: Analysis, group: CoupledGroup) -> bool:
    """Whether an axis of the group is split into several, which can be done in another way."""
    return any(splits_axis(found.graph.program.by_name[node]) for node in found.doubts.get(group.name, ()))


def _modules(found: Analysis, groups: Iterable[CoupledGroup]) -> tuple[str, ...]:
    """The modules whose operations put the groups in doubt."""
    graph = found.graph
    nodes = {node for group in groups for node in found.doubts[group.name]}
    return tuple(dict.fromkeys(owner(graph, node) for node in graph.program.nodes if node.name in nodes))


def _improved(stirred: nn.Module, found: Analysis, place: Place, propose: Callable[..., Iterable[Reading]]) -> Analysis:
    """The analysis with the first readings under which the modules of a place can be cut.

    Modules that raise an error on the way, as those that check their input do, are looked at as well.
    """
    doubtful, raised = place, set[str]()
    for _ in range(2):
        for reading in propose(found, place=place):
            outcome = _best(stirred, found, place, reading)
            raised |= outcome.raised
            if outcome.held:
                found, place, doubtful = outcome.found, place.without(outcome.held), doubtful.without(outcome.held)
            if not doubtful.modules:
                return found
        if raised <= set(place.modules):
            break
        place = place.with_more(sorted(raised))
    return found


def _best(stirred: nn.Module, found: Analysis, place: Place, reading: Reading) -> _Outcome:
    """With the code's numbers as they are; where the outputs differ, with those that follow a size; or for a part."""
    scaled = reading.scaled != reading.sized
    outcome = _Outcome(stirred, found, place, reading.sized, parts=not scaled)
    if not scaled or outcome.held or not outcome.differs:
        return outcome
    other = _Outcome(stirred, found, place, reading.scaled)
    return other if other.held else _Outcome(stirred, found, place, reading.sized)


class _Outcome:
    """For which modules of a place a reading holds.

    parts: whether it is enough that it holds for a part of those whose cuts run.
    held: their paths. found: the analysis read so for them. differs: whether a cut ran, but gave other outputs. raised:
    paths of modules that did not run.
    """

    def __init__(
        self, stirred: nn.Module, found: Analysis, place: Place, hints: Mapping[str, Hints], *, parts: bool = True
    ) -> None:
        self.held: frozenset[str] = frozenset()
        self.found = found
        self.differs = False
        self.raised: set[str] = set()
        self._stirred = stirred
        self._parts = parts
        modules = frozenset(place.modules)
        for _ in range(2):
            chosen = [own for path, own in hints.items() if path in modules]
            other = found.again(found.hints.with_more(joined(chosen)))
            groups = _touched(other, place.lines, modules)
            bad = self._failed(other.graph, groups)
            lost = frozenset(_modules(other, bad)) | (modules - frozenset(_modules(other, groups)))
            if groups and not bad:
                self.held, self.found = modules - lost, other
                break
            modules -= lost
            if not bad or not modules:
                break

    def _failed(self, graph: ModelGraph, groups: Sequence[CoupledGroup]) -> list[CoupledGroup]:
        """Those that cannot be cut. Groups of one kind, such as those of equal layers, are tried as one."""
        kinds: dict[object, list[CoupledGroup]] = {}
        for group in groups:
            slices = tuple((part.param.rpartition(".")[2], part.axis, part.count) for part in group.slices)
            kinds.setdefault((group.width, group.multiple_of, slices), []).append(group)

        def plan(chosen: Sequence[object]) -> PrunePlan:
            return half_plan(graph, _names(group for kind in chosen for group in kinds[kind]))

        def stops(chosen: Sequence[object]) -> str:
            return self._why(runs(self._stirred, graph, plan(chosen))[1])

        def differs(chosen: Sequence[object]) -> str:
            return self._why(trial(self._stirred, graph, plan(chosen)))

        failed = _failing_of(list(kinds), stops)
        running = [kind for kind in kinds if kind not in failed]
        uneven = uneven_plan(graph, _names(group for kind in running for group in kinds[kind]))
        if running and self._why(trial(self._stirred, graph, uneven)):
            failed += (_failing_of(running, differs) if self._parts else []) or running
        return [group for kind in failed for group in kinds[kind]]

    def _why(self, match: Match) -> str:
        if match.module is not None:
            self.raised.add(match.module)
        self.differs |= 0 < match.error < float("inf") and not match.ok
        return match.reason


def _failing_of(kinds: list[object], reason: Callable[[Sequence[object]], str]) -> list[object]:
    """Those for which there is a reason. Where the first and the last fail, the ones between are taken to fail, too."""
    known: dict[tuple[object, ...], str] = {}

    def why(chosen: Sequence[object]) -> str:
        if tuple(chosen) not in known:
            known[tuple(chosen)] = reason(chosen)
        return known[tuple(chosen)]

    if len(kinds) > 2 and why(kinds) and why(kinds[:1]) and why(kinds[-1:]):
        return kinds
    return list(bisect(kinds, why))


def _names(groups: Iterable[CoupledGroup]) -> list[str]:
    return [group.name for group in groups]


def _touched(found: Analysis, lines: frozenset[str], modules: frozenset[str]) -> list[CoupledGroup]:
    """The free groups that the lines, as run by the modules, may insist on."""
    graph = found.graph
    nodes = {
        node.name
        for node in graph.program.nodes
        if node.op == "call_function" and site(node) in lines and owner(graph, node) in modules
    }
    return [group for group in graph.free_groups if nodes & found.doubts.get(group.name, frozenset())]
