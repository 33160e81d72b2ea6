"""The methods that a search is made of: names given to it, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from nasprune import registry
from nasprune.base import Controller, Evaluator
from nasprune.calibration.scoring import Scorer
from nasprune.errors import InputError
from nasprune.evaluators.function import evaluator_of
from nasprune.refit.reconstruct import check_method
from nasprune.registry import Plugins
from nasprune.run.names import scorer


@dataclass(frozen=True)
class Names:
    """Names of plugins, as given; "auto" is for the search to choose. evaluator: a name or the user's own function."""

    criterion: str = "auto"
    controller: str = "auto"
    evaluator: str | Callable[[nn.Module], float] = "auto"
    space: str = "auto"
    reconstruct: str = "auto"

    def settled(self, defaults: Names) -> Names:
        """The same with `defaults` for every "auto"."""
        given = {name: value for name, value in vars(self).items() if value != "auto"}
        return replace(defaults, **given)


WITH_DATA = Names("obs", "auto", "accuracy", "widths", "lstsq")
WITHOUT_DATA = Names("l2", "evolution", "importance", "widths", "none")


@dataclass(frozen=True)
class Methods:
    """What the names stand for. names: those that were looked up, by what they are of."""

    scorer: Scorer
    controller: type[Controller]
    evaluator: type[Evaluator]
    space: str
    reconstruct: str
    names: dict[str, str]

    @property
    def refits(self) -> bool:
        """Whether a cut network is refitted in closed form."""
        return self.reconstruct != "none"


def looked_up(asked: Names, *, has_data: bool, plugins: Plugins) -> Methods:
    """The methods called so.

    Raises:
        UnknownNameError: nothing is called so. InputError: a method needs data, and there is none.
        PluginError: a plugin cannot be loaded.
    """
    names = asked.settled(WITH_DATA if has_data else WITHOUT_DATA)
    check_method(names.reconstruct)
    if names.reconstruct != "none" and not has_data:
        raise InputError(
            f"reconstruct={names.reconstruct!r} needs data; give some with `data=` (`--data`), or take 'none'"
        )
    own = evaluator_of(names.evaluator) if callable(names.evaluator) else None
    evaluator = own.name if own is not None else str(names.evaluator)
    found = Methods(
        scorer=scorer(names.criterion, plugins),
        controller=registry.load("controllers", names.controller, plugins),
        evaluator=own or registry.load("evaluators", evaluator, plugins),
        space=registry.find("search_spaces", names.space, plugins).name,
        reconstruct=names.reconstruct,
        names={
            "criterion": names.criterion,
            "controller": names.controller,
            "evaluator": evaluator,
            "space": names.space,
            "reconstruct": names.reconstruct,
        },
    )
    if found.evaluator.needs_data and not has_data:
        raise InputError(f"the evaluator {evaluator!r} needs data; give some with `data=` (`--data`)")
    found.scorer.check_data(has_data)
    return found
