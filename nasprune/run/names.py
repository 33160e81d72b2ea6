"""What the names given to a search stand for, ready to use."""

from __future__ import annotations

import inspect
import logging

from nasprune.calibration.scoring import Scorer
from nasprune.errors import InputError, PluginError
from nasprune.graph.model import ModelGraph
from nasprune.graph.rules import OpRule
from nasprune.registry import Plugins, entries, load, with_options
from nasprune.space.choices import SearchSpace

SHARED_OPTIONS = ("reduce", "normalise")


def scorer(spec: str, plugins: Plugins = None) -> Scorer:
    """The criterion that `NAME` or `NAME(option=value, ...)` stands for, ready to score a model.

    Options are keyword arguments of the criterion's constructor, and those of every criterion: `reduce`, `normalise`.

    Raises:
        UnknownNameError: nothing is called so. InputError: an option is unknown, or its value is refused.
    """
    kind, make, shared = with_options("criteria", spec, plugins, SHARED_OPTIONS)
    return Scorer(spec, make, kind.needs_data, **shared)


def search_space(graph: ModelGraph, name: str = "widths", *, plugins: Plugins = None, **options: object) -> SearchSpace:
    """Builds the search space called `name` over a traced model; `options` go to its `build`.

    Raises:
        InputError: `build` does not take one of the options, or refuses its value. PluginError: it gives no space.
    """
    build = load("search_spaces", name, plugins)
    try:
        inspect.signature(build).bind(graph, **options)
    except TypeError as error:
        raise InputError(f"the search space {name!r} does not take these options: {error}") from error
    space = build(graph, **options)
    if not isinstance(space, SearchSpace):
        raise PluginError(f"the search space {name!r} gave a {type(space).__name__}, expected a `nasprune.SearchSpace`")
    return space


def op_rules(plugins: Plugins = None) -> list[OpRule]:
    """The op rules of installed packages, bundled files and `plugins`, for `nasprune.trace`.

    Rules are not asked for by name, so one that cannot be loaded is left out with a warning: what it would have
    explained stays frozen.
    """
    rules: list[OpRule] = []
    for entry in entries("op_rules", plugins):
        try:
            rules.append(entry.load()())
        except PluginError as error:
            logging.getLogger(__name__).warning("%s; its operators stay frozen", error)
    return rules
