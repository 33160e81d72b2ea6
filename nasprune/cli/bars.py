"""One line that moves on a terminal: what is done, how far it is, and numbers, as many as fit the width."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

WIDEST = 40
NARROWEST = 8
SHARE = 6
"""One of so many columns of the screen is the bar's."""


class Bar:
    """What is on the screen. console: for lines above it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._what, self._since = "starting", time.monotonic()
        self._task = progress.add_task(self._what, total=None, parts=(), counted=False, since=self._since)

    @property
    def console(self) -> Console:
        return self._progress.console

    def update(self, what: str, done: float = 0, total: float | None = None, parts: Sequence[str] = ()) -> None:
        """Shows how far `what` is; without a total a spinner and the seconds since it began.

        parts: numbers beside the bar; where the screen is too narrow for all, those before the last go, from the right.
        """
        if what != self._what or not (done or total):
            self._what, self._since = what, time.monotonic()
        told: dict[str, Any] = {"parts": tuple(parts), "counted": total is not None, "since": self._since}
        self._progress.update(self._task, description=what, completed=done, total=total, **told)

    def refresh(self) -> None:
        self._progress.refresh()


@contextmanager
def bar_on(console: Console) -> Iterator[Bar]:
    """A bar, on the screen while the context lasts."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        _Counted(bar_width=_bar_width(console)),
        _State(console),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress)


def fitting(parts: Sequence[str], width: int) -> str:
    """The first and the last part, and of the others as many as fit, from the left.

    >>> fitting(("step 1/9", "loss 0.5", "0:09 left"), 80), fitting(("step 1/9", "loss 0.5", "0:09 left"), 20)
    ('step 1/9  loss 0.5  0:09 left', 'step 1/9  0:09 left')
    """
    kept = list(parts)
    while len("  ".join(kept)) > width and len(kept) > 1:
        del kept[-2]
    return "  ".join(kept)


def _bar_width(console: Console) -> int:
    return max(NARROWEST, min(WIDEST, console.width // SHARE))


class _Counted(BarColumn):
    """A bar where steps are counted, else nothing."""

    def render(self, task: Task) -> Text:  # type: ignore[override]
        return super().render(task) if task.fields["counted"] else Text()  # type: ignore[return-value]


class _State(ProgressColumn):
    """The numbers; where nothing is counted, the seconds since it began."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def render(self, task: Task) -> Text:
        if not task.fields["counted"]:
            return Text(f"{time.monotonic() - task.fields['since']:.0f} s", no_wrap=True)
        taken = len(f"* {task.description} ") + _bar_width(self._console) + 1
        return Text(fitting(task.fields["parts"], self._console.width - taken), no_wrap=True)
