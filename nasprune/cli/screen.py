"""What reaches the screen: tables on stdout, notes and progress on stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nasprune.common.memory import written
from nasprune.common.phases import highest_memory
from nasprune.common.processes import is_first
from nasprune.common.words import visible
from nasprune.cost.units import short
from nasprune.errors import InputError

if TYPE_CHECKING:
    from nasprune.cli.bars import Bar
    from nasprune.common.phases import PhaseStep
    from nasprune.run.exploration import Progress
    from nasprune.train.polish import PolishStep
    from nasprune.train.progress import Epoch, TrainingStep

_PLAIN_WIDTH = 160
_PLAIN_SECONDS = 5.0


@dataclass
class Mode:
    """What a command prints. json: one object instead of tables. quiet: no progress and no notes.

    verbose: lines on stderr begin with the seconds since `began` and the highest memory so far; every phase has one as
    it starts, and what the package logs as information.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    began: float = 0.0


MODE = Mode()


def speak(*, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
    """Says how the command at hand is to print. Raises InputError where that is both much and little."""
    if quiet and verbose:
        raise InputError("--quiet and --verbose are opposites; leave one of them out")
    MODE.json, MODE.quiet, MODE.verbose = as_json, quiet or not is_first(), verbose
    MODE.began = time.monotonic()
    logging.getLogger("nasprune").setLevel(logging.INFO if verbose else logging.NOTSET)


def answer(record: Mapping[str, object]) -> None:
    """The one JSON object on stdout, where it was asked for."""
    if MODE.json and is_first():
        sys.stdout.write(json.dumps(record, indent=1, default=str) + "\n")


def stdout() -> Console:
    """Wide where it is not a terminal, so that no cell is cut off in a file. Silent where JSON was asked for."""
    silent = MODE.json or not is_first()
    console = Console(highlight=False, soft_wrap=True, quiet=silent)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH, quiet=silent)


def stderr() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True, quiet=MODE.quiet)


def say(text: str, console: Console | None = None) -> None:
    """One line on stderr. console: that of a bar which is on the screen."""
    printed(console or stderr(), f"{_since()}{text}")


def _since() -> str:
    """How long the command runs and the most memory that it has held, where that was asked for."""
    return f"{time.monotonic() - MODE.began:7.1f} s {written(highest_memory()):>8}  " if MODE.verbose else ""


def printed(console: Console, *lines: str) -> None:
    """Lines as they are, without markup; control characters are written out."""
    for line in lines:
        console.print(Text(visible(line)), soft_wrap=True)


class Notes(logging.Handler):
    """Shows what the package logs, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING or MODE.verbose:
            say(f"note: {record.getMessage()}")


class Told(logging.Handler):
    """Shows how far something is, as it logs it, where not all is shown anyway."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING and not MODE.verbose:
            say(record.getMessage())


@contextmanager
def heard(*names: str) -> Iterator[None]:
    """Inside, what the modules of these names log as information is shown, a line each."""
    told, loggers = Told(logging.INFO), [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.addHandler(told)
            logger.setLevel(logging.INFO)
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.removeHandler(told)
            logger.setLevel(level)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> Table:
    """A table without vertical lines. right: columns of numbers."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, name in enumerate(head):
        made.add_column(name, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(visible(cell)) for cell in row))
    return made


class SearchScreen:
    """Shows how far a search is: a bar on a terminal, else a line every five seconds and at the end."""

    def __init__(self, time_limit: float | None) -> None:
        self._limit = time_limit
        self._console = stderr()
        self._bar: Bar | None = None
        self._last = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator[SearchScreen]:
        """The bar is on the screen while the context lasts."""
        if not _draws(self._console):
            yield self
            return
        from nasprune.cli.bars import bar_on

        with bar_on(self._console) as self._bar:
            yield self

    def __call__(self, progress: Progress) -> None:
        """Takes the progress of the search after each trial."""
        last = progress.total is not None and progress.index + 1 == progress.total
        if self._bar is not None:
            done, total = _share(progress, self._limit)
            self._bar.update("searching", done, total, (*_where(progress), _left(progress, self._limit)))
        elif last or time.monotonic() - self._last > _PLAIN_SECONDS:
            self._last = time.monotonic()
            say("  ".join([*_where(progress), _left(progress, self._limit)]))

    def phase(self, step: PhaseStep) -> None:
        """Takes the start of each phase, and how far it is."""
        if MODE.verbose and not step.done:
            say(step.phase, self._bar.console if self._bar is not None else None)
        if self._bar is not None:
            self._bar.update(step.phase, step.done, step.of or None, _phase_state(step))
        elif time.monotonic() - self._last > _PLAIN_SECONDS:
            self._last = time.monotonic()
            say("  ".join([step.phase, *_phase_state(step)]))

    def polishing(self, step: PolishStep) -> None:
        """Takes the progress of polishing after each check."""
        if self._bar is not None:
            self._bar.update("polishing", step.number, step.of, _polish_state(step))
        else:
            say(f"polish {'  '.join(_polish_state(step))}")


class TrainingScreen:
    """Shows how far a training is: a bar on a terminal, else a line every five seconds; a line for every epoch."""

    def __init__(self) -> None:
        self._console = stderr()
        self._bar: Bar | None = None
        self._last = time.monotonic()
        self._note = ""

    @contextmanager
    def shown(self) -> Iterator[TrainingScreen]:
        """The bar is on the screen while the context lasts."""
        if not _draws(self._console):
            yield self
            return
        from nasprune.cli.bars import bar_on

        with bar_on(self._console) as self._bar:
            yield self

    def step(self, step: TrainingStep) -> None:
        """Takes the progress after each step."""
        parts = (
            f"epoch {step.epoch}/{step.epochs}",
            f"step {step.step}/{step.steps}",
            f"loss {step.loss:.4f}",
            f"accuracy {100 * step.accuracy:.1f}%",
            f"rate {step.rate:.1e}",
            f"{step.images:.0f} images/s",
            left(step.left),
        )
        if self._bar is not None:
            done = (step.epoch - 1) * step.steps + step.step
            self._bar.update("training", done, step.epochs * step.steps, parts)
        elif time.monotonic() - self._last > _PLAIN_SECONDS:
            self._last = time.monotonic()
            say("  ".join(parts))

    def epoch(self, epoch: Epoch) -> None:
        """Takes the outcome of each epoch."""
        if epoch.note and epoch.note != self._note:
            self._note = epoch.note
            self._line(f"note: {epoch.note}")
        self._line(
            f"epoch {epoch.number}/{epoch.of}  loss {epoch.loss:.4f}  validation loss {epoch.validation_loss:.4f}, "
            f"accuracy {100 * epoch.validation_accuracy:.1f}%  {epoch.seconds:.0f} s"
        )

    def _line(self, text: str) -> None:
        say(text, self._bar.console if self._bar is not None else None)


def _draws(console: Console) -> bool:
    """Whether a bar can be drawn: on a terminal, or in a notebook that has ipywidgets."""
    if not console.is_jupyter or console.quiet:
        return console.is_terminal and not console.quiet
    try:
        import_module("ipywidgets")
    except ImportError:
        say("lines every few seconds, since a bar in a notebook needs ipywidgets: pip install ipywidgets")
        return False
    return True


def left(seconds: float) -> str:
    """Time that is left, in words.

    >>> left(75.2)
    '1:15 left'
    """
    return f"{round(seconds) // 60}:{round(seconds) % 60:02} left"


def _polish_state(step: PolishStep) -> tuple[str, ...]:
    return (
        f"step {step.number}/{step.of}",
        f"divergence {step.divergence:.4f}",
        f"best {step.best:.4f}",
        f"loss {step.loss:.4f}",
        f"rate {step.rate:.1e}",
        f"{left(step.seconds * (step.of / step.number - 1))} at most",
    )


def _phase_state(step: PhaseStep) -> tuple[str, ...]:
    counted = (f"{step.done} of {step.of}",) if step.of else ()
    return counted if step.left is None else (*counted, left(step.left))


def _where(progress: Progress) -> tuple[str, ...]:
    of = f"/{progress.total}" if progress.total is not None else ""
    best, flops = f"best {progress.best_score:.4f}", short(progress.cost.flops, "FLOPs")
    return f"trial {progress.index + 1}{of}", best, flops


def _share(progress: Progress, limit: float | None) -> tuple[float, float]:
    shares: list[tuple[float, float]] = [(progress.index + 1, progress.total)] if progress.total is not None else []
    shares += [(progress.elapsed, limit)] if limit is not None else []
    done, total = max(shares, key=lambda pair: pair[0] / pair[1], default=(1, 1))
    return float(done), float(total)


def _left(progress: Progress, limit: float | None) -> str:
    done, total = _share(progress, limit)
    return left(progress.elapsed * (total / done - 1) if done else 0)
