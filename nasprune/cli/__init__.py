"""The command line: the only place that prints or exits. Results go to stdout, progress and errors to stderr.

Import from here: `main`.
May import: everything.
"""

from __future__ import annotations

import os
import sys
import warnings

from nasprune.errors import NaspruneError

INTERRUPTED = 130  # typer's code for an interrupt from the keyboard


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and exits: 0 done, 1 a check failed, 2 bad input (one line on stderr), 130 interrupted."""
    # Threads that spin while they wait make a busy machine hundreds of times slower. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from typer.exceptions import TyperException

    from nasprune.cli.app import app

    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        code = app(args=arguments, prog_name="nasprune", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:
            _complain("interrupted; a search that has recorded trials goes on when the command is repeated")
    except NaspruneError as error:
        code = _complain(str(error))
    except TyperException as error:
        code = _complain(f"{error.format_message()} (nasprune --help lists the commands and their options)")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _complain(f"{error.strerror}{f': {error.filename}' if error.filename else ' while writing the output'}")
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str) -> int:
    line = " ".join(message.split())
    print(f"nasprune: {line}", file=sys.stderr, flush=True)
    return 2
