"""What the names given to a search stand for, ready to use."""

from __future__ import annotations

import inspect
import logging

from nasprune.calibration.scoring import Scorer
from nasprune.common.arguments import refused
from nasprune.common.blame import running
from nasprune.common.declared import check_declared
from nasprune.errors import InputError, PluginError
from nasprune.graph.model import ModelGraph
from nasprune.graph.rules import OpRule
from nasprune.registry import Plugins, entries, with_its, with_keywords, with_options
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

    Args:
        graph: what `nasprune.trace` returned.
        name: of the space, with options where wanted: "widths(divisor=16)".
        plugins: folders of plugin files.
        options: the same options, as arguments.

    Raises:
        InputError: `build` does not take one of the options, or refuses its value. PluginError: it gives no space.
    """
    if isinstance(graph, str):
        raise _no_graph(graph, plugins)
    build, written = with_keywords("search_spaces", name, plugins, ("graph",))
    try:
        inspect.signature(build).bind(graph, **{**options, **written})
    except TypeError as error:
        raise InputError(f"the search space {name!r} does not take these options: {error}") from error
    check_declared(name, build, options)
    options = {**options, **written}
    with running(build, f"search space `{name}`"):
        space = with_its(options, build, name, graph)
    if not isinstance(space, SearchSpace):
        raise PluginError(f"the search space {name!r} gave a {type(space).__name__}, expected a `nasprune.SearchSpace`")
    return space


def _no_graph(name: str, plugins: Plugins) -> InputError:
    """For a name in the place of the graph, which is how one asks for the options of a space."""
    build, _ = with_keywords("search_spaces", name, plugins, ("graph",))
    options = "; ".join(str(value) for value in [*inspect.signature(build).parameters.values()][1:])
    return refused(
        "graph",
        "what `nasprune.trace` returned",
        name,
        f"write search_space(nasprune.trace(model, inputs), {name!r}); its options are {options or 'none'}",
    )


def check_space(name: str, plugins: Plugins = None) -> None:
    """Raises UnknownNameError where there is no such search space, or it has no such option."""
    with_keywords("search_spaces", name, plugins, ("graph",))


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
