"""Whose code an exception came from: the file and the line to look at."""

from __future__ import annotations

import inspect
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nasprune.common.factories import one_line
from nasprune.errors import InputError, NaspruneError, PluginError

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))


def told(error: BaseException) -> str:
    """The kind of the error, its first line, and the line of the user's own code that it came through."""
    message = one_line(error)
    said = f"{type(error).__name__}: {message[:300]}" if message else type(error).__name__
    place = culprit(error)
    return f"{said}, at {place}" if place else said


def culprit(error: BaseException) -> str:
    """FILE:LINE of the innermost frame that is neither nasprune's, a library's nor made up; "" where there is none."""
    frames = [*traceback.extract_tb(error.__traceback__)]
    for frame in reversed(frames):
        if not frame.filename.startswith("<") and is_foreign(Path(frame.filename)):
            return f"{frame.filename}:{frame.lineno}"
    return ""


def is_foreign(file: Path) -> bool:
    """Whether a file is the user's own: outside of nasprune, its bundled plugins, and installed packages."""
    file = file.resolve()
    return not _is_own(file) and not any(file.is_relative_to(root) for root in LIBRARIES)


def _is_own(file: Path) -> bool:
    checkout = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else PACKAGE / "_bundled"
    return any(file.is_relative_to(root) for root in (PACKAGE, checkout / "plugins", checkout / "search_spaces"))


@contextmanager
def running(owner: object, what: str) -> Iterator[None]:
    """Inside, `owner`, a class or function that was looked up by name, or something made of it, does its work.

    Raises:
        PluginError: it is the user's and fails; names the file and the line.
        InputError: it is nasprune's own, so that the model or the data made it fail.
    """
    try:
        yield
    except NaspruneError:
        raise
    except (Exception, SystemExit) as error:  # the process is not a plugin's to end
        if _is_users(owner):
            raise PluginError(f"{what} failed: {told(error)}") from error
        raise InputError(
            f"{what} cannot work with this model and data: {told(error)}; check that the model runs on a batch of the "
            "data, or choose another method"
        ) from error


def _is_users(owner: object) -> bool:
    kind = owner if inspect.isclass(owner) or inspect.isroutine(owner) else type(owner)
    if kind.__module__.startswith("nasprune."):
        return False
    try:
        file = inspect.getsourcefile(kind)
    except TypeError:
        return True
    return file is None or not _is_own(Path(file).resolve())
