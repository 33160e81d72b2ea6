"""Every scorer of operations keeps the contract, and breaking it is noticed."""

from __future__ import annotations

import pytest
import torch

from nasprune import InputError, OpScorer, PluginError, UnknownNameError, registry
from nasprune.supernet.score.naming import op_scorer
from nasprune.supernet.score.task import ScoringTask
from nasprune.supernet.structure.sample import SampleSupernet, sample_structure
from nasprune.testing import check_op_scorer

NAMES = [entry.name for entry in registry.entries("op_scorers")]


def test_a_net_is_copied_where_a_scorer_looks_at_it():
    structure = sample_structure(SampleSupernet().eval())
    tasks = [ScoringTask.on_copy(structure, [], [], seed=0) for _ in range(2)]
    for name, task in zip(("flops_order", "alpha"), tasks, strict=True):
        op_scorer(name).score(task)
    assert ["net" in vars(task) for task in tasks] == [False, True]
    assert tasks[1].net is not structure.net


def test_all_are_there():
    built_in = {"alpha", "flops_order", "perturbation", "random"}
    assert set(NAMES) >= built_in | {"asap", "dso", "gate_fisher", "gate_taylor", "nwot", "synflow"}


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    check_op_scorer(registry.load("op_scorers", name))


@pytest.mark.parametrize("name", NAMES)
def test_scorers_that_need_data_say_so(name):
    scorer = op_scorer(name)
    task = ScoringTask.on_copy(sample_structure(SampleSupernet().eval()), [], [], seed=0)
    if scorer.needs_data:
        with pytest.raises(InputError, match="images"):
            scorer.score(task)
    else:
        assert scorer.score(task)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"random", "alpha", "path_loss"}))
def test_none_is_worth_nothing(name):
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4
    task = ScoringTask.on_copy(sample_structure(SampleSupernet().eval()), [images], [images], seed=0)
    scores = op_scorer(name).score(task)["edge0"]
    assert scores[0] == 0
    assert scores[1:].abs().max() > 0


class Good(OpScorer):
    def score(self, task):
        return {choice.name: torch.ones(len(choice.ops)) for choice in task.choices}


class Forgets(Good):
    def score(self, task):
        return dict(list(super().score(task).items())[1:])


class Draws(Good):
    def score(self, task):
        return {name: torch.rand(len(values)) for name, values in super().score(task).items()}


class Infinite(Good):
    def score(self, task):
        return {name: values / 0 for name, values in super().score(task).items()}


class Hooked(Good):
    def score(self, task):
        task.net.register_forward_hook(lambda *_: None)
        return super().score(task)


class Moves(Good):
    def score(self, task):
        with torch.no_grad():
            next(task.net.parameters()).add_(1)
        return super().score(task)


def test_a_good_one_passes():
    check_op_scorer(Good)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Forgets, "must score the choices"),
        (Draws, "global random generator"),
        (Infinite, "finite numbers"),
        (Hooked, "leaves hooks"),
        (Moves, "changes the supernet"),
    ],
)
def test_broken_ones_are_named(kind, message):
    with pytest.raises(PluginError, match=rf"{kind.__name__}.*{message}"):
        check_op_scorer(kind)


def test_options_are_parsed_and_checked():
    assert op_scorer("perturbation(metric=accuracy, batches=2)")
    with pytest.raises(UnknownNameError, match="`alpha` option 'rul'"):
        op_scorer("alpha(rul=darts)")
    with pytest.raises(InputError, match="darts, no_none, logit, alpha_beta"):
        op_scorer("alpha(rule=argmax)")
    with pytest.raises(UnknownNameError, match="scorer of operations"):
        op_scorer("perturbate")
