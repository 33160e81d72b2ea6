"""The command line: the only place that prints or exits. Results go to stdout, progress and errors to stderr.

Import from here: `main`.
May import: everything.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nasprune.cli.interrupts import INTERRUPTS

INTERRUPTED = 130  # typer's code for an interrupt from the keyboard


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and exits.

    Args:
        arguments: the words of the command; those of the process by default, which then ends with the command.

    0 done, 1 a check failed, 2 bad input (one line on stderr), 130 interrupted by Ctrl-C, 143 by SIGTERM.
    """
    with INTERRUPTS.watching(to_the_end=arguments is None):
        code = INTERRUPTS.ends_with(_run(arguments))
    sys.exit(code)


def _run(arguments: list[str] | None) -> int:
    import os
    import warnings

    # Threads that spin while they wait make a busy machine hundreds of times slower. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from typer.exceptions import TyperException

    from nasprune.cli.app import program
    from nasprune.cli.screen import speak
    from nasprune.errors import NaspruneError

    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    speak()
    try:
        with _logged():
            code = program()(args=arguments, prog_name="nasprune", standalone_mode=False)
        sys.stdout.flush()
        interrupted = code == INTERRUPTED or INTERRUPTS.signal is not None
    except KeyboardInterrupt:
        interrupted = True
    except NaspruneError as error:
        interrupted = INTERRUPTS.signal is not None  # it was taken for a failure on its way up
        code = 2 if interrupted else _complain(str(error), error)
    except TyperException as error:
        if not error.format_message():  # the help is already on the screen, since no command was given
            return 2
        return _complain(f"{error.format_message()} (nasprune --help lists the commands and their options)")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        place = f": {error.filename}" if error.filename else " while writing the output"
        return _complain(f"{error.strerror}{place}")
    finally:
        speak()  # the next command in this process says for itself how it prints
    if interrupted:
        _complain(INTERRUPTS.line)
        return INTERRUPTS.code
    return code if isinstance(code, int) else 0


@contextmanager
def _logged() -> Iterator[None]:
    """Inside, what the package logs is shown, and text that the output cannot encode is written out."""
    import io
    import logging

    from nasprune.cli.screen import Notes

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    logger, notes = logging.getLogger("nasprune"), Notes(logging.INFO)
    logger.addHandler(notes)
    try:
        yield
    finally:
        logger.removeHandler(notes)


def _complain(message: str, cause: BaseException | None = None) -> int:
    import traceback

    from nasprune.cli.screen import MODE
    from nasprune.common.words import visible

    if MODE.verbose and cause is not None:
        for line in "".join(traceback.format_exception(cause)).splitlines():
            print(visible(line), file=sys.stderr)
    print(f"nasprune: {visible(' '.join(message.split()))}", file=sys.stderr, flush=True)
    return 2
