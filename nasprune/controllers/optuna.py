"""Optuna's samplers as controllers (Akiba et al. 2019, arXiv:1907.10902); they need `pip install 'nasprune[optuna]'`.

TPE: Bergstra et al. 2011, NeurIPS, as Optuna has it. NSGA-II: Deb et al. 2002, IEEE TEVC 6(2), for two objectives, the
score up and the FLOPs down; its proposals are shrunk into the budget and never grown to it, so that the trials spread
over the costs below (`nasprune.pareto_front`). A width is offered as the number of its option, a whole number, so that
neighbouring widths are alike; a block as a category. The first trial is the uniform decision. As with NNI's tuners, the
sampler learns the score of the repaired decision under the proposal it made.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from typing import Any, ClassVar

from nasprune.base import Controller
from nasprune.controllers.scaling import uniform
from nasprune.errors import InputError
from nasprune.space.budgeted import BudgetedSpace
from nasprune.space.choices import Decision
from nasprune.space.trials import Trial

POPULATION = 32


class OptunaSampler(Controller):
    """What both samplers share: the translation of space, decision and outcome."""

    directions: ClassVar[tuple[str, ...]]

    def __init__(self, problem: BudgetedSpace, *, seed: int) -> None:
        optuna = _optuna()
        self._choices = problem.space.choices
        self._domains = {
            choice.name: optuna.distributions.IntDistribution(0, len(choice.options) - 1)
            if len(choice.options) > 2
            else optuna.distributions.CategoricalDistribution(tuple(range(len(choice.options))))
            for choice in self._choices
        }
        self._study = optuna.create_study(sampler=self._sampler(optuna, seed), directions=list(self.directions))
        start = uniform(problem)
        self._study.enqueue_trial({choice.name: choice.options.index(start[choice.name]) for choice in self._choices})

    @abstractmethod
    def _sampler(self, optuna: Any, seed: int) -> Any:
        """The seeded sampler."""

    @abstractmethod
    def _values(self, trial: Trial) -> list[float]:
        """One value for each of `directions`."""

    def ask(self) -> Decision | None:
        self._asked = self._study.ask(self._domains)
        return Decision.of({choice.name: choice.options[self._asked.params[choice.name]] for choice in self._choices})

    def tell(self, trial: Trial) -> None:
        self._study.tell(self._asked, self._values(trial))


class OptunaTPE(OptunaSampler):
    """Tree-structured Parzen estimator; every choice by itself."""

    directions = ("maximize",)

    def _sampler(self, optuna: Any, seed: int) -> Any:
        return optuna.samplers.TPESampler(seed=seed)

    def _values(self, trial: Trial) -> list[float]:
        return [trial.score]


class OptunaNSGA2(OptunaSampler):
    """Non-dominated sorting; explores all costs within the budget."""

    fills = False
    directions = ("maximize", "minimize")

    def _sampler(self, optuna: Any, seed: int) -> Any:
        return optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)

    def _values(self, trial: Trial) -> list[float]:
        return [trial.score, float(trial.cost.flops)]


def _optuna() -> Any:
    """Imports Optuna; where the user has not done so before, its news on the standard error are turned off."""
    first = "optuna" not in sys.modules
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "the controllers optuna:TPE and optuna:NSGA2 need optuna; install it with: pip install 'nasprune[optuna]'"
        ) from error
    if first:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
