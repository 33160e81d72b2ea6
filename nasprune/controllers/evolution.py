"""Regularised (aging) evolution: Real et al. 2019, arXiv:1802.01548.

As in the paper, the parent is the best of a random sample of the population, and the oldest member dies when a child is
born. Departures: the population starts at the uniform decision and at perturbations of it instead of at random, since
the budget leaves only a thin shell of the space worth visiting; a child may take each choice from either of two
parents; and a mutation moves a width by a few grid steps more often than to an arbitrary option. Children over budget
are repaired by the search loop; the population holds the repaired decisions.
"""

from __future__ import annotations

from collections import deque
from random import Random

from nasprune.base import BudgetedSpace, Controller
from nasprune.controllers.scaling import uniform
from nasprune.report import Trial
from nasprune.space import Choice, Decision, WidthChoice

MUTATIONS = 2.0
"""Choices changed in a child, on average."""
STEP = 0.15
"""Standard deviation of a mutation, as a share of a width's options."""
ANYWHERE = 0.1
"""Probability that a mutation goes to any option instead of a near one."""
CROSSOVER = 0.8
"""Probability that a child has two parents."""
BLOCK_FLIP = 0.25
"""How much less likely a block is mutated than a width."""


class Evolution(Controller):
    """Aging evolution. population: living decisions. sample: how many compete to be a parent."""

    def __init__(self, problem: BudgetedSpace, *, seed: int, population: int = 32, sample: int = 16) -> None:
        self._problem = problem
        self._rng = Random(seed)
        self._size = population
        self._sample = sample
        self._living: deque[Trial] = deque(maxlen=population)
        self._asked = 0

    def ask(self) -> Decision | None:
        self._asked += 1
        if self._asked == 1:
            return uniform(self._problem)
        if self._asked <= self._size or not self._living:
            return self._perturbed(self._living[0].decision if self._living else uniform(self._problem))
        child = self._parent()
        if self._rng.random() < CROSSOVER:
            child = self._crossed(child, self._parent())
        return self._mutated(child)

    def tell(self, trial: Trial) -> None:
        self._living.append(trial)

    def _parent(self) -> Decision:
        rivals = self._rng.sample(list(self._living), min(self._sample, len(self._living)))
        return max(rivals, key=lambda trial: trial.score).decision

    def _crossed(self, first: Decision, second: Decision) -> Decision:
        return Decision.of({name: first[name] if self._rng.random() < 0.5 else second[name] for name in first})

    def _perturbed(self, decision: Decision) -> Decision:
        """Every width moved a little, each block dropped with a small probability."""
        strength = self._rng.random()
        drop = BLOCK_FLIP * strength * self._rng.random()
        options = dict(decision)
        for choice in self._problem.space.choices:
            if isinstance(choice, WidthChoice):
                options[choice.name] = self._moved(choice, options[choice.name], strength)
            elif self._rng.random() < drop:
                options[choice.name] = choice.options[0]
        return Decision.of(options)

    def _mutated(self, decision: Decision) -> Decision:
        choices = self._problem.space.choices
        options = dict(decision)
        weights = [1.0 if isinstance(choice, WidthChoice) else BLOCK_FLIP for choice in choices]
        count = 1 + sum(self._rng.random() < (MUTATIONS - 1) / 4 for _ in range(4))
        for choice in self._rng.choices(choices, weights, k=count) if choices else ():
            if len(choice.options) == 2 or self._rng.random() < ANYWHERE:
                others = [option for option in choice.options if option != options[choice.name]]
                options[choice.name] = self._rng.choice(others or [options[choice.name]])
            else:
                options[choice.name] = self._moved(choice, options[choice.name], 1.0)
        return Decision.of(options)

    def _moved(self, choice: Choice, option: int, strength: float) -> int:
        """Another option near `option`."""
        last = len(choice.options) - 1
        step = self._rng.gauss(0, strength * STEP * (last + 1))
        whole = round(step) or (1 if step > 0 else -1)
        return choice.options[min(max(choice.options.index(option) + whole, 0), last)]
