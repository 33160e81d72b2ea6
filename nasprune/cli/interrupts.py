"""Ctrl-C and SIGTERM: one line that says what was kept and how to go on, and the exit code 130 or 143.

Before a command holds anything, either ends the process at once, in the middle of imports too. While a run folder is
written they unwind, so that nothing half-written stays. While a search tries candidates, the first Ctrl-C only asks it
to end after the trial at hand; the next one unwinds, and one after that ends the process.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from pathlib import Path

AGAIN = "a search that has recorded trials goes on when the command is repeated"
NOTHING = "nothing was written; repeat the command to begin again"
ENDED = "the command had ended, and what it wrote is whole"
FINISHING = "finishing the trial at hand, then the best plan so far is proved and written; Ctrl-C again stops at once"
WATCHED = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Raised where a signal came in."""


class Interrupts:
    """The signals of one command."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.signal: int | None = None
        self.asked = False
        self._holding = False
        self._searching = False
        self._final: int | None = None
        self._kept: Callable[[], str] = lambda: AGAIN

    @contextmanager
    def watching(self, *, to_the_end: bool = False) -> Iterator[None]:
        """Inside, the signals are handled here; outside of the main thread they cannot be, and nothing is done.

        to_the_end: the process ends with the command, and until it has they are handled afterwards, too.
        """
        self._reset()
        before = {number: signal.getsignal(number) for number in WATCHED}
        try:
            for number, handler in before.items():
                if handler is not signal.SIG_IGN:  # as under nohup
                    signal.signal(number, self._handle)
        except ValueError:  # not in the main thread
            yield
            return
        if to_the_end:
            atexit.register(self._end)  # the first, so that it runs last
        try:
            yield
        finally:
            if to_the_end:
                self._kept = lambda: ENDED
            else:
                for number, handler in before.items():
                    signal.signal(number, handler)

    @contextmanager
    def holding(self, kept: Callable[[], str]) -> Iterator[None]:
        """Inside, a signal unwinds. kept: says what was kept and how to go on, afterwards too."""
        self._holding, self._kept = True, kept
        try:
            yield
        finally:
            self._holding = self._searching = False

    def stopping(self) -> bool:
        """Whether a search is to end now; once this was asked, the first Ctrl-C is a wish."""
        self._searching = self._holding
        return self.asked

    @property
    def code(self) -> int:
        """For `sys.exit`."""
        return 128 + (self.signal or signal.SIGINT)

    @property
    def line(self) -> str:
        """What to say at the end."""
        return f"{'terminated' if self.signal == signal.SIGTERM else 'interrupted'}; {self._kept()}"

    def _handle(self, number: int, frame: Any) -> None:
        again, self.signal = self.signal is not None and not self.asked, number
        if not self._holding or again:
            self._leave()
        if number == signal.SIGINT and self._searching and not self.asked:
            self.asked = True
            _write(f"\nnasprune: {FINISHING}\n")
            return
        self.asked = False
        raise Stopped

    def ends_with(self, code: int) -> int:
        """The code with which the process will end."""
        self._final = code
        return code

    def _end(self) -> None:
        """Ends the process once all is done: taking torch apart lasts seconds, in which nobody handles signals."""
        if self._final is None:  # an error that nobody foresaw; Python says what it was
            return
        with suppress(OSError, ValueError):  # nobody reads, or it is closed
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(self._final)

    def _leave(self) -> NoReturn:
        """Ends the process as it is: an exception in the middle of an import may be taken for another one."""
        from nasprune.common.words import visible

        cursor = "\x1b[?25h" if os.isatty(2) else ""  # which a progress bar hides
        _write(f"{cursor}nasprune: {visible(self.line)}\n")
        os._exit(self.code)


def _write(text: str) -> None:
    try:
        os.write(2, text.encode(errors="backslashreplace"))
    except OSError:  # nobody reads
        return


INTERRUPTS = Interrupts()


@contextmanager
def writing(folder: Path, names: Sequence[str], kept: Callable[[], str] = lambda: NOTHING) -> Iterator[None]:
    """The folder of a run: tried for writing before anything takes long, and locked until the end.

    Args:
        names: of the files that will be written. kept: see `Interrupts.holding`.

    Raises:
        InputError: it cannot be written, or another process writes to it.
    """
    from nasprune.common.files import check_places
    from nasprune.common.locks import held

    with INTERRUPTS.holding(kept), held(folder):
        check_places(folder, names)
        yield
