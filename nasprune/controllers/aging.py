"""Regularised (aging) evolution over decisions, which `evolution` and `auto` share: Real et al. 2019, arXiv:1802.01548.

As in the paper, the parent is the best of a random sample of the population, and the oldest member dies when a child is
born. Departures: the population starts at given decisions and at perturbations of them instead of at random, since the
budget leaves only a thin shell of the space worth visiting; a child may take each choice from either of two parents;
and a mutation moves a width by a few grid steps more often than to an arbitrary option. Children are not kept within
budget here, nor drawn until one is: the search loop repairs them; the population holds the repaired decisions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random

from nasprune.space.choices import Choice, Decision, SearchSpace, WidthChoice
from nasprune.space.trials import Trial

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


class Aging:
    """The population. Proposes the seeds in their order, then perturbations of them, then children.

    Args:
        space: what may be decided.
        seeds: decisions to start from, at least one; within budget or not.
        rng: moves with every proposal but the seeds.
        population: living decisions.
        sample: how many compete to be a parent.
        spread: how far the first population strays from the seeds; at 1 every width by up to `STEP` of its options.
    """

    def __init__(
        self, space: SearchSpace, seeds: Sequence[Decision], rng: Random, *, population: int, sample: int, spread: float
    ) -> None:
        self._space = space
        self._seeds = list(seeds)
        self._rng = rng
        self._sample = sample
        self._spread = spread
        self._living: deque[Trial] = deque(maxlen=max(population, len(seeds)))
        self._asked = 0

    def ask(self) -> Decision:
        number = self._asked
        self._asked += 1
        if number < len(self._seeds):
            return self._seeds[number]
        if number < (self._living.maxlen or 0) or not self._living:
            return self._perturbed(self._seeds[number % len(self._seeds)])
        child = self._parent()
        if self._rng.random() < CROSSOVER:
            child = self._crossed(child, self._parent())
        return self._mutated(child)

    def tell(self, trial: Trial) -> None:
        if trial.index < len(self._seeds):
            self._seeds[trial.index] = trial.decision  # as repaired
        self._living.append(trial)

    def _parent(self) -> Decision:
        rivals = self._rng.sample(list(self._living), min(self._sample, len(self._living)))
        return max(rivals, key=lambda trial: trial.score).decision

    def _crossed(self, first: Decision, second: Decision) -> Decision:
        return Decision.of({name: first[name] if self._rng.random() < 0.5 else second[name] for name in first})

    def _perturbed(self, decision: Decision) -> Decision:
        """Every width moved a little, each block dropped with a small probability."""
        strength = self._spread * self._rng.random()
        drop = BLOCK_FLIP * strength * self._rng.random()
        options = dict(decision)
        for choice in self._space.choices:
            if isinstance(choice, WidthChoice):
                options[choice.name] = self._moved(choice, options[choice.name], strength)
            elif self._rng.random() < drop:
                options[choice.name] = choice.options[0]
        return Decision.of(options)

    def _mutated(self, decision: Decision) -> Decision:
        choices = self._space.choices
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
