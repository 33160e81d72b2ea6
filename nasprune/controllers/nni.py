"""Microsoft NNI's tuners as controllers: TPE (Bergstra et al. 2011, NeurIPS), naive evolution, random search.

The tuners run in this process. A width is offered as the number of its option, a whole number in a range, so that TPE
sees that neighbouring widths are alike. NNI learns the score of the repaired decision under the proposal it made.
Departures: the evolution tuner draws from global generators and cannot be seeded; it gets a generator of its own, and
Python's global one is lent to it, seeded, and restored after each call.
"""

from __future__ import annotations

import random
import sys
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nasprune.base import Controller
from nasprune.space.budgeted import BudgetedSpace
from nasprune.space.choices import Choice, Decision
from nasprune.space.trials import Trial


class NniTuner(Controller):
    """What the three tuners share: the translation of space, decision and score."""

    def __init__(self, problem: BudgetedSpace, *, seed: int) -> None:
        _quiet_import()
        self._choices = problem.space.choices
        self._random = random.Random(seed).getstate()
        self._count = 0
        with self._lent():
            self._tuner = self._started(seed, {choice.name: _domain(choice) for choice in self._choices})

    @abstractmethod
    def _started(self, seed: int, domains: dict[str, Any]) -> Any:
        """The seeded tuner, told its search space."""

    def ask(self) -> Decision | None:
        from nni import NoMoreTrialError

        try:
            with self._lent():
                self._asked = self._tuner.generate_parameters(self._count)
        except NoMoreTrialError:
            return None
        return Decision.of({choice.name: choice.options[round(self._asked[choice.name])] for choice in self._choices})

    def tell(self, trial: Trial) -> None:
        with self._lent():
            self._tuner.receive_trial_result(self._count, self._asked, trial.score)
        self._count += 1

    @contextmanager
    def _lent(self) -> Iterator[None]:
        """Python's global generator in this tuner's state; the user's state comes back afterwards."""
        users = random.getstate()
        random.setstate(self._random)
        try:
            yield
        finally:
            self._random = random.getstate()
            random.setstate(users)


class NniTPE(NniTuner):
    """Tree-structured Parzen estimator."""

    def _started(self, seed: int, domains: dict[str, Any]) -> Any:
        from nni.algorithms.hpo.tpe_tuner import TpeTuner

        tuner = TpeTuner(optimize_mode="maximize", seed=seed)
        tuner.update_search_space(domains)
        return tuner


class NniRandom(NniTuner):
    """Random search without repetition."""

    def _started(self, seed: int, domains: dict[str, Any]) -> Any:
        from nni.algorithms.hpo.random_tuner import RandomTuner

        tuner = RandomTuner(seed=seed)
        tuner.update_search_space(domains)
        return tuner


class NniEvolution(NniTuner):
    """Naive evolution: Real et al. 2017, arXiv:1703.01041."""

    def _started(self, seed: int, domains: dict[str, Any]) -> Any:
        from nni.algorithms.hpo.evolution_tuner import EvolutionTuner

        tuner = EvolutionTuner(optimize_mode="maximize", population_size=0)
        tuner.update_search_space(domains)
        tuner.random_state = np.random.RandomState(seed)
        for _ in range(32):
            tuner._random_generate_individual()
        tuner.population_size = 32
        return tuner


def _domain(choice: Choice) -> dict[str, Any]:
    """A choice as NNI sees it: the number of the option, ordered."""
    last = len(choice.options) - 1
    if last < 2:
        return {"_type": "choice", "_value": list(range(last + 1))}
    return {"_type": "quniform", "_value": [0, last, 1]}


def _quiet_import() -> None:
    """Imports NNI; where the user has not done so before, its printing to the standard output is turned off."""
    first = "nni" not in sys.modules
    import nni

    if first:
        nni.silence_stdout()
