"""Where a trimmed space stands among random ones of equal cost, by the scorer's own worths."""

from __future__ import annotations

import torch

from nasprune import OpScorer, Supernet
from nasprune.supernet.price.limits import parse_limit
from nasprune.supernet.report.pages import lines, markdown
from nasprune.supernet.report.standing import random_selections, standing
from nasprune.supernet.trim.schedules import Stage
from tests.supernet.toys import OPS, Toy, images


class By(OpScorer):
    """Given worths, the same for every choice."""

    def __init__(self, *worths: float) -> None:
        self.worths = worths

    def score(self, task):
        return {choice.name: torch.tensor(self.worths) for choice in task.choices}


def toy() -> Supernet:
    return Supernet.from_model(Toy(), images(), op_names=OPS)


def test_the_best_by_its_own_worths_is_at_the_top():
    report = toy().trim("60%", scorer=By(0.0, 0.9, 0.2, 0.4), keep_max=2).report
    assert report.standing is not None
    assert report.standing.percentile > 80
    assert "no accuracies" in markdown(report)
    assert any("random selections of equal cost" in line for line in lines(report))


def test_worths_that_say_nothing_are_in_the_middle():
    structure = toy().structure
    limit = parse_limit("60%", structure.counts)
    selections = random_selections(structure, Stage(keep=2), limit, 0, draws=50)
    scores = {choice.name: dict.fromkeys(choice.ops, 1.0) for choice in structure.choices}
    kept = {one.name: [one.ops[op] for op in selections[0][one.name]] for one in structure.choices}
    found = standing(structure, scores, kept, [selections[0]] * 30, limit)
    assert found is not None
    assert (found.percentile, found.spaces) == (50, 30)


def test_random_selections_keep_the_budget_and_the_seed_fixes_them():
    structure = toy().structure
    limit = parse_limit("60%", structure.counts)
    one, other = (random_selections(structure, Stage(keep=2), limit, seed, draws=5) for seed in (0, 1))
    assert one == random_selections(structure, Stage(keep=2), limit, 0, draws=5)
    assert one != other
    assert all(structure.prices.of_kept(structure.choices, kept).fvcore <= limit.number for kept in one)


def test_too_few_of_equal_cost_say_nothing():
    supernet = toy()
    scores = {choice.name: dict.fromkeys(choice.ops, 1.0) for choice in supernet.choices}
    kept = {choice.name: choice.ops for choice in supernet.choices}
    limit = parse_limit("60%", supernet.counts)
    assert standing(supernet.structure, scores, kept, [], limit) is None
