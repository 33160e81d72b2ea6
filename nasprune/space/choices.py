"""The search space: one choice per thing that can be removed, one option picked per choice."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import log10

from nasprune.common.html import code, in_notebook, table, text
from nasprune.errors import PlanError

SHOWN = 60
"""Choices that a text lists."""
LISTED = 14
"""Options of a choice that are listed."""
NONE_NAMES = frozenset({"none", "zero", "zeroize"})
"""Names of candidate operations that give zeros: no connection at all."""


@dataclass(frozen=True)
class WidthChoice:
    """How many units of a group stay. options: kept counts, ascending, the last is the full width."""

    name: str
    options: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_options(self.name, self.options)


@dataclass(frozen=True)
class BlockChoice:
    """Whether a removable block stays: 1, or goes: 0."""

    name: str
    options: tuple[int, ...] = (0, 1)

    def __post_init__(self) -> None:
        _check_options(self.name, self.options)


@dataclass(frozen=True)
class OpChoice:
    """Which candidates stay: one decision for all mixed operations in `places`.

    ops: names of the candidates. places: numbers of the tied mixed operations, in order of registration. zeros: numbers
    of the candidates that were seen to give zeros in all of these; names can tell this too.
    """

    name: str
    ops: tuple[str, ...]
    places: tuple[int, ...]
    zeros: tuple[int, ...] = ()

    @property
    def none(self) -> int | None:
        """The number of the first candidate that connects nothing."""
        return next(iter(self.empty), None)

    @property
    def empty(self) -> tuple[int, ...]:
        """The numbers of the candidates that connect nothing."""
        return tuple(i for i, name in enumerate(self.ops) if i in self.zeros or name.lower() in NONE_NAMES)

    @property
    def connecting(self) -> tuple[int, ...]:
        """The numbers of the candidates that connect something."""
        return tuple(i for i in range(len(self.ops)) if i not in self.empty)


Choice = WidthChoice | BlockChoice


def _listed(choice: Choice) -> str:
    """The options of a choice; of many the first and the last."""
    if isinstance(choice, BlockChoice):
        return "stays or goes" if len(choice.options) > 1 else "stays"
    numbers = [str(option) for option in choice.options]
    if len(numbers) > LISTED:
        numbers = [*numbers[: LISTED - 2], "…", numbers[-1]]
    return ", ".join(numbers)


def _check_options(name: str, options: tuple[int, ...]) -> None:
    if not options or list(options) != sorted(set(options)) or options[0] < 0:
        raise PlanError(f"choice {name!r}: options must be distinct, ascending and not negative, got {options}")


@dataclass(frozen=True)
class Decision(Mapping[str, int]):
    """One option per choice, by the choice's name. Equal decisions have equal digests."""

    items_: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, options: Mapping[str, int]) -> Decision:
        return cls(tuple(sorted((name, int(option)) for name, option in options.items())))

    @cached_property
    def _options(self) -> dict[str, int]:
        return dict(self.items_)

    def __getitem__(self, name: str) -> int:
        return self._options[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._options)

    def __len__(self) -> int:
        return len(self.items_)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that name the decision, the same in every process."""
        return hashlib.sha256(json.dumps(self.items_).encode()).hexdigest()[:16]

    def replaced(self, name: str, option: int) -> Decision:
        """The same decision with another option for one choice.

        >>> dict(Decision.of({"conv1": 16, "layer1.1": 1}).replaced("conv1", 8))
        {'conv1': 8, 'layer1.1': 1}
        """
        return Decision.of({**self._options, name: option})


@dataclass(frozen=True)
class SearchSpace:
    """An ordered set of choices with distinct names."""

    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        if len({choice.name for choice in self.choices}) != len(self.choices):
            raise PlanError("two choices of the search space have the same name")

    def __repr__(self) -> str:
        """A line for each choice."""
        wide = max((len(choice.name) for choice in self.choices), default=0)
        lines = [f"  {choice.name:{wide}}  {_listed(choice)}" for choice in self.choices[:SHOWN]]
        more = [f"  ... and {len(self.choices) - SHOWN} more"] if len(self.choices) > SHOWN else []
        return "\n".join([f"SearchSpace: {self._counted}", *lines, *more])

    def _repr_html_(self) -> str:
        """For notebooks: a line for each choice."""
        rows = [(code(choice.name), text(_listed(choice))) for choice in self.choices]
        return in_notebook([f"<p><b>SearchSpace</b>: {self._counted}</p>", table(("choice", "options"), rows)])

    @property
    def _counted(self) -> str:
        digits = sum(log10(len(choice.options)) for choice in self.choices)
        networks = f"{self.size:,}" if digits < 7 else f"about 1e{round(digits)}"
        return f"{len(self.widths)} widths and {len(self.blocks)} blocks, {networks} networks"

    @cached_property
    def _by_name(self) -> Mapping[str, Choice]:
        return {choice.name: choice for choice in self.choices}

    def __getitem__(self, name: str) -> Choice:
        return self._by_name[name]

    @property
    def widths(self) -> tuple[WidthChoice, ...]:
        return tuple(choice for choice in self.choices if isinstance(choice, WidthChoice))

    @property
    def blocks(self) -> tuple[BlockChoice, ...]:
        return tuple(choice for choice in self.choices if isinstance(choice, BlockChoice))

    @property
    def size(self) -> int:
        """Number of decisions."""
        total = 1
        for choice in self.choices:
            total *= len(choice.options)
        return total

    def largest(self) -> Decision:
        """Everything kept."""
        return Decision.of({choice.name: choice.options[-1] for choice in self.choices})

    def smallest(self) -> Decision:
        """As little kept as the options allow."""
        return Decision.of({choice.name: choice.options[0] for choice in self.choices})

    def sample(self, rng: random.Random) -> Decision:
        """Each option equally likely."""
        return Decision.of({choice.name: rng.choice(choice.options) for choice in self.choices})

    def scaled(self, share: float) -> Decision:
        """Every width at the option nearest to `share` of its full width, every block kept."""
        options = {choice.name: choice.options[-1] for choice in self.choices}
        for choice in self.widths:
            wanted = share * choice.options[-1]
            options[choice.name] = min(choice.options, key=lambda option: (abs(option - wanted), option))
        return Decision.of(options)

    def check(self, decision: Decision) -> None:
        """Raises PlanError unless `decision` has exactly one valid option for every choice."""
        missing = [choice.name for choice in self.choices if choice.name not in decision]
        unknown = [name for name in decision if name not in self._by_name]
        if missing or unknown:
            raise PlanError(
                f"a decision needs one option for each choice: missing {missing[:3]}, unknown {unknown[:3]}"
            )
        for choice in self.choices:
            if decision[choice.name] not in choice.options:
                raise PlanError(
                    f"choice {choice.name!r} has options {choice.options}, got {decision[choice.name]}; "
                    "take one of them"
                )
