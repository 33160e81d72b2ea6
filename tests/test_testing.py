from __future__ import annotations

import random

import pytest
import torch

from nasprune import registry
from nasprune.base import Controller, Criterion, Evaluator
from nasprune.errors import PluginError
from nasprune.space.choices import Decision, SearchSpace, WidthChoice
from nasprune.sparse.contract import Sparsifier
from nasprune.testing import check_controller, check_criterion, check_evaluator, check_space, check_sparsifier

CHECKS = {
    "criteria": check_criterion,
    "controllers": check_controller,
    "evaluators": check_evaluator,
    "search_spaces": check_space,
    "sparsifiers": check_sparsifier,
}
FIRST_PARTY = [(kind, entry.name) for kind in CHECKS for entry in registry.entries(kind)]


@pytest.mark.parametrize(("kind", "name"), FIRST_PARTY)
def test_first_party_plugins_keep_their_contracts(kind, name):
    CHECKS[kind](registry.load(kind, name))


class Forgetful(Criterion):
    def score(self, group, context):
        return torch.tensor([random.random() for _ in range(group.width)])


class Private(Criterion):
    made = 0

    def score(self, group, context):
        Private.made += 1
        return torch.full((group.width,), float(Private.made))


class Writer(Criterion):
    def score(self, group, context):
        total = torch.zeros(group.width)
        for rows in context.rows(group):
            total += rows.abs_().sum(1)
        return total


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Forgetful, "global random generator"), (Private, "other scores"), (Writer, "changes the tensors")],
)
def test_bad_criteria_are_told(kind, message):
    with pytest.raises(PluginError, match=f"`{kind.__name__}` .*{message}"):
        check_criterion(kind)


class Silent(Controller):
    def __init__(self, problem, *, seed):
        self._space = problem.space

    def ask(self):
        return None

    def tell(self, trial):
        pass


class Outside(Silent):
    def ask(self):
        return Decision.of({"nothing": 1})


class Unseeded(Silent):
    count = 0

    def ask(self):
        Unseeded.count += 1
        return self._space.sample(random.Random(Unseeded.count))


class Global(Silent):
    def ask(self):
        return self._space.sample(random)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Silent, "proposes nothing"),
        (Outside, "the space does not hold"),
        (Unseeded, "proposes otherwise"),
        (Global, "global random generator"),
    ],
)
def test_bad_controllers_are_told(kind, message):
    with pytest.raises(PluginError, match=f"`{kind.__name__}` .*{message}"):
        check_controller(kind)


class Empty(Evaluator):
    def __init__(self, task):
        self._dense = task.dense

    def evaluate(self, candidate):
        return float("nan")


class Counting(Empty):
    count = 0

    def evaluate(self, candidate):
        Counting.count += 1
        return float(Counting.count)


class Vandal(Empty):
    def evaluate(self, candidate):
        self._dense.head.weight.data.add_(1)
        return 0.0


@pytest.mark.parametrize(
    ("kind", "message"), [(Empty, "finite floats"), (Counting, "another order"), (Vandal, "changes the dense model")]
)
def test_bad_evaluators_are_told(kind, message):
    with pytest.raises(PluginError, match=f"`{kind.__name__}` .*{message}"):
        check_evaluator(kind)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (lambda group: WidthChoice("nobody", (1,)), "no free group"),
        (lambda group: WidthChoice(group.name, (1, 2)), "full width"),
        (lambda group: WidthChoice(group.name, (0, group.width)), "cannot be built"),
    ],
)
def test_bad_spaces_are_told(choice, message):
    def bad(graph):
        return SearchSpace((choice(graph.free_groups[0]),))

    with pytest.raises(PluginError, match=message):
        check_space(bad)


class Drawing(Sparsifier):
    def score(self, layer):
        return torch.rand(layer.weights.shape)


class Shrinking(Sparsifier):
    def score(self, layer):
        return layer.weights.abs_()


class Flat(Sparsifier):
    def score(self, layer):
        return layer.weights.abs().sum(2)


class Broken(Sparsifier):
    def score(self, layer):
        return layer.weights.log()


class Fresh(Sparsifier):
    made = 0

    def score(self, layer):
        Fresh.made += 1
        return layer.weights.abs() + Fresh.made


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Drawing, "global random generator"),
        (Shrinking, "changes the tensors"),
        (Flat, r"the shape of the weights, \(1, 8, 6\), got \(1, 8\)"),
        (Broken, "not finite"),
        (Fresh, "other scores for layer 0"),
    ],
)
def test_bad_sparsifiers_are_told(kind, message):
    with pytest.raises(PluginError, match=f"`{kind.__name__}` .*{message}"):
        check_sparsifier(kind)
