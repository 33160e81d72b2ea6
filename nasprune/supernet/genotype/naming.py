"""What the names of spaces stand for, and the name under which a space can be found again."""

from __future__ import annotations

import inspect

from nasprune.common.fields import shown
from nasprune.errors import InputError, PluginError, UnknownNameError
from nasprune.registry import Entry, Plugins, entries, with_options
from nasprune.supernet.genotype.spaces import SupernetSpace


def supernet_space(spec: str, plugins: Plugins = None) -> SupernetSpace:
    """The space of supernets that `NAME` or `NAME(option=value, ...)` stands for, such as "darts".

    Raises:
        UnknownNameError: nothing is called so. InputError: an option is unknown, or its value is refused.
    """
    _, make, _ = with_options("supernet_spaces", spec, plugins)
    found: SupernetSpace = make()
    return found


def recorded_space(spec: str, plugins: Plugins, where: str) -> SupernetSpace:
    """The space whose name was read from a file: only registered ones are looked up, and nothing else is imported.

    Args:
        where: it was read, for messages, such as "supernet.json".

    Raises:
        InputError: no such space is registered, or it refuses its options.
    """
    try:
        _, make, _ = with_options("supernet_spaces", spec, plugins, own=False)
        found: SupernetSpace = make()
    except UnknownNameError as error:
        raise InputError(
            f"{where} names the space {shown(spec)}, which is not registered, and what a file names is never imported; "
            f"if you trust it, give it yourself with `space=` (--space) or `plugins=` (--plugins). {error}"
        ) from error
    except (InputError, PluginError):
        raise
    except Exception as error:  # whatever a constructor raises at options that nobody typed
        raise InputError(f"{where}: the space {shown(spec)} refuses its options: {shown(str(error))}") from error
    return found


def spec_of(space: SupernetSpace, plugins: Plugins = None) -> str:
    """What `supernet_space` makes an equal space of: `NAME` or `NAME(option=value, ...)`.

    Options are those arguments of the constructor that are attributes of the space and differ from the default. A space
    that has no name is `package.module:Class`.
    """
    kind = type(space)
    names = [entry.name for entry in entries("supernet_spaces", plugins) if _gives(entry, kind)]
    name = names[0] if names else f"{kind.__module__}:{kind.__qualname__}"
    options = []
    for option, parameter in inspect.signature(kind).parameters.items():
        value = getattr(space, option, parameter.default)
        if value != parameter.default:
            options.append(f"{option}={list(value) if isinstance(value, tuple) else value!r}")
    return f"{name}({', '.join(options)})" if options else name


def _gives(entry: Entry, kind: type) -> bool:
    try:
        return entry.load() is kind
    except PluginError:
        return False
