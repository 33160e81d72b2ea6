from __future__ import annotations

import random
from random import Random

import numpy as np
import pytest

from nasprune.controllers.evolution import Evolution
from nasprune.controllers.nni import NniEvolution, NniRandom, NniTPE
from nasprune.controllers.random import RandomSearch
from nasprune.controllers.uniform import Uniform
from nasprune.report import Trial
from tests.fakes import graph_of, group, priced, resnet_like

ALL = [Uniform, RandomSearch, Evolution, NniTPE, NniEvolution, NniRandom]


def score(problem, decision):
    """Rewards keeping the stem and punishes wide late layers."""
    return decision["stem"] / 32 - sum(decision[c.name] for c in problem.space.widths[-6:]) / 2000


def run(controller, problem, trials, seed=0):
    """Asks, fits and tells `trials` times."""
    history = []
    for index in range(trials):
        proposal = controller.ask()
        if proposal is None:
            break
        problem.space.check(proposal)
        decision = problem.fit(proposal, Random(f"{seed}/{index}"))
        trial = Trial(index, decision, problem.costs([decision])[0], score(problem, decision), 0.0)
        controller.tell(trial)
        history.append(trial)
    return history


@pytest.fixture(scope="module")
def problem():
    return priced(resnet_like(), "50%", step=8)


@pytest.mark.parametrize("kind", ALL)
def test_same_seed_same_proposals_and_the_global_generators_are_left_alone(kind, problem):
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = run(kind(problem, seed=3), problem, 40)
    random.seed(99)
    second_before = random.getstate()
    second = run(kind(problem, seed=3), problem, 40)
    assert [trial.decision for trial in first] == [trial.decision for trial in second]
    assert random.getstate() == second_before
    random.setstate(before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


@pytest.mark.parametrize("kind", ALL[1:])
def test_another_seed_gives_other_proposals(kind, problem):
    first, second = (run(kind(problem, seed=seed), problem, 10) for seed in (0, 1))
    assert [trial.decision for trial in first] != [trial.decision for trial in second]


def test_uniform_proposes_one_common_share_within_budget(problem):
    proposal = Uniform(problem, seed=0).ask()
    shares = [proposal[c.name] / c.options[-1] for c in problem.space.widths]
    assert max(shares) - min(shares) <= 0.25  # the grid of the narrowest groups
    assert problem.budget.allows(problem.costs([proposal])[0])
    assert len(run(Uniform(problem, seed=0), problem, 5)) == 1


def test_evolution_beats_uniform_and_random_search(problem):
    best = {kind: max(t.score for t in run(kind(problem, seed=0), problem, 400)) for kind in ALL[:3]}
    assert best[Evolution] > best[RandomSearch] > best[Uniform]


@pytest.mark.parametrize("kind", [NniRandom, NniTPE])
def test_a_space_that_is_used_up_ends_the_search(kind):
    problem = priced(graph_of([group("stem", 4)]), "100%")
    assert len(run(kind(problem, seed=0), problem, 50)) <= 50


def test_tpe_learns(problem):
    history = run(NniTPE(problem, seed=0), problem, 120)
    early, late = history[:20], history[-20:]
    assert sum(t.score for t in late) > sum(t.score for t in early)
