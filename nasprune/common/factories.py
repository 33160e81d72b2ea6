"""Finding a factory the user names: `file.py:factory` or `package.module:factory`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from nasprune.common.alone import alone
from nasprune.errors import InputError, UnknownNameError


def find_factory(spec: str, *, what: str) -> Callable[[], Any]:
    """The callable named by `file.py:factory` or `package.module:factory`.

    Args:
        spec: where it is; a file is read by its path and may import what stands beside it.
        what: what the factory makes, for messages: "model", "data".

    Raises:
        InputError: the file or module cannot be imported, or the attribute is not callable.
        UnknownNameError: the module has no such attribute.
    """
    place, _, attribute = spec.rpartition(":")
    if not place or not attribute:
        raise InputError(f"expected file.py:factory or package.module:factory as the {what}, got {spec!r}")
    module = _from_file(Path(place), what) if place.endswith(".py") else _from_package(place, what)
    if not hasattr(module, attribute):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UnknownNameError(f"{what} factory in {place}", attribute, known)
    factory = getattr(module, attribute)
    if not callable(factory):
        raise InputError(f"{spec!r} is a {type(factory).__name__}; expected a function without arguments")
    return factory  # type: ignore[no-any-return]


def call_factory(spec: str, *, what: str) -> Any:
    """What the factory named by `spec` returns when called without arguments.

    Raises:
        InputError: as `find_factory`, or the factory itself fails or calls `sys.exit`.
    """
    factory = find_factory(spec, what=what)
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise InputError(f"{what} factory {spec!r} failed: {type(error).__name__}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [""])[0]


def _from_file(path: Path, what: str) -> ModuleType:
    if not path.is_file():
        raise InputError(f"no file {str(path)!r} to take the {what} from; give an existing file.py:factory")
    name = f"nasprune_user_{path.stem}_{sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    with alone():
        return sys.modules[name] if name in sys.modules else _run_anew(path, name, what)


def _run_anew(path: Path, name: str, what: str) -> ModuleType:
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise InputError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError(f"cannot import {str(path)!r}: {type(error).__name__}: {one_line(error)}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _from_package(name: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"no module {error.name!r} to take the {what} from; install it, or name a file: path/to/{name}.py:factory"
        ) from error
    except (Exception, SystemExit) as error:
        raise InputError(f"cannot import {name!r}: {type(error).__name__}: {one_line(error)}") from error
