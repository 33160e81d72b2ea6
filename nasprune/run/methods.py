"""The methods that a search is made of: names given to it, and what they stand for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from nasprune.base import Controller, EvaluationTask, Evaluator
from nasprune.calibration.scoring import Scorer
from nasprune.common.arguments import refused
from nasprune.common.blame import running
from nasprune.errors import InputError
from nasprune.evaluators.function import evaluator_of
from nasprune.refit.reconstruct import check_method
from nasprune.registry import Plugins, with_its, with_keywords
from nasprune.run.names import check_space, scorer
from nasprune.space.budgeted import BudgetedSpace


@dataclass(frozen=True)
class Names:
    """Names of plugins, as given; "auto" is for the search to choose. evaluator: a name or the user's own function."""

    criterion: str = "auto"
    controller: str = "auto"
    evaluator: str | Callable[[nn.Module], float] = "auto"
    space: str = "auto"
    reconstruct: str = "auto"
    sparsifier: str = "auto"

    def settled(self, defaults: Names) -> Names:
        """The same with `defaults` for every "auto"."""
        given = {name: value for name, value in vars(self).items() if value != "auto"}
        return replace(defaults, **given)

    def check(self) -> None:
        """Raises InputError where one is no name."""
        for argument, value in vars(self).items():
            if isinstance(value, str) or (argument == "evaluator" and callable(value) and not inspect.isclass(value)):
                continue
            raise refused(argument, "a name", value, f"write it as text, {_written(value)}")


def _written(value: object) -> str:
    """How a class or function of the user's is named, for messages."""
    kind = value if inspect.isclass(value) or inspect.isroutine(value) else type(value)
    module = "file.py" if kind.__module__ == "__main__" else kind.__module__
    return f"such as '{module}:{kind.__name__}', or give the folder of its file with plugins="


WITH_DATA = Names("obs", "auto", "accuracy", "widths", "lstsq", "obs")
WITHOUT_DATA = Names("l2", "evolution", "importance", "widths", "none", "obs")


@dataclass(frozen=True)
class Methods:
    """What the names stand for. names: those that were looked up, by what they are of."""

    scorer: Scorer
    controller: type[Controller]
    controller_options: Mapping[str, Any]
    evaluator: type[Evaluator]
    evaluator_options: Mapping[str, Any]
    space: str
    reconstruct: str
    names: dict[str, str]

    def new_controller(self, problem: BudgetedSpace, *, seed: int) -> Controller:
        """The controller with the options that were written behind its name."""
        spec = self.names["controller"]
        with running(self.controller, f"controller `{spec}`"):
            made: Controller = with_its(self.controller_options, self.controller, spec, problem, seed=seed)
        return made

    def new_evaluator(self, task: EvaluationTask) -> Evaluator:
        """The evaluator with the options that were written behind its name."""
        spec = self.names["evaluator"]
        with running(self.evaluator, f"evaluator `{spec}`"):
            made: Evaluator = with_its(self.evaluator_options, self.evaluator, spec, task)
        return made

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
    asked.check()
    names = asked.settled(WITH_DATA if has_data else WITHOUT_DATA)
    check_method(names.reconstruct)
    if names.reconstruct != "none" and not has_data:
        raise InputError(
            f"reconstruct={names.reconstruct!r} needs data; give some with `data=` (`--data`), or take 'none'"
        )
    own = evaluator_of(names.evaluator) if callable(names.evaluator) else None
    evaluator = own.name if own is not None else str(names.evaluator)
    controller, of_controller = with_keywords("controllers", names.controller, plugins, ("problem", "seed"))
    by_name, of_evaluator = (own, {}) if own else with_keywords("evaluators", evaluator, plugins, ("task",))
    check_space(names.space, plugins)
    found = Methods(
        scorer=scorer(names.criterion, plugins),
        controller=controller,
        controller_options=of_controller,
        evaluator=by_name,
        evaluator_options=of_evaluator,
        space=names.space,
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
