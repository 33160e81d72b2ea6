"""What long work is doing, how far it is, and what each part of it cost."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PhaseStep:
    """How far a phase is: `done` of `of` steps, in `seconds`; `of` is 0 where the steps are not known."""

    phase: str
    done: int
    of: int
    seconds: float

    @property
    def left(self) -> float | None:
        """Seconds that are left if the steps go on as they went."""
        return self.seconds * (self.of - self.done) / self.done if self.done and self.of else None


@dataclass(frozen=True)
class PhaseCost:
    """What a phase took: seconds without those of phases inside; the process's highest memory so far, in bytes."""

    phase: str
    seconds: float
    memory: int


Steps = Callable[[int, int], None]
"""Takes how many steps are done, and of how many."""


def unseen(done: int, of: int) -> None:
    """Nobody looks."""


@dataclass
class Phases:
    """The phases of one run. watch: told when a phase starts, and of its steps."""

    watch: Callable[[PhaseStep], None] | None = None
    _seconds: dict[str, float] = field(default_factory=dict)
    _memory: dict[str, int] = field(default_factory=dict)
    _inner: list[float] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[Steps]:
        """Runs what follows as the phase `name`; it may say how far it is."""
        start = time.monotonic()
        self._inner.append(0.0)

        def step(done: int, of: int) -> None:
            if self.watch is not None:
                self.watch(PhaseStep(name, done, of, time.monotonic() - start))

        step(0, 0)
        try:
            yield step
        finally:
            seconds = time.monotonic() - start
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds - self._inner.pop()
            self._memory[name] = highest_memory()
            if self._inner:
                self._inner[-1] += seconds

    @property
    def costs(self) -> tuple[PhaseCost, ...]:
        """Of every phase, in the order in which they first ended."""
        return tuple(PhaseCost(name, seconds, self._memory[name]) for name, seconds in self._seconds.items())


def highest_memory() -> int:
    """The most memory that this process has held, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
