"""Criteria with options, from what the user writes to the scores."""

from __future__ import annotations

import pytest
import torch

import nasprune
from nasprune import registry
from nasprune.base import Criterion
from nasprune.calibration.scoring import Scorer, WeightContext
from nasprune.common.options import parse_named
from nasprune.errors import InputError, UnknownNameError
from nasprune.run.names import scorer
from tests.criteria.nets import mixed, pictures
from tests.nets import EXAMPLE, TinyResNet, images

ALL = [entry.name for entry in registry.entries("criteria")]


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("l2", "l2", {}),
        ("nni:TPE", "nni:TPE", {}),
        ("lp(p=1)", "lp", {"p": 1}),
        (" lp ( p = 0.5, reduce=max, normalise='layer' ) ", "lp", {"p": 0.5, "reduce": "max", "normalise": "layer"}),
        ("my.module:Thing(sizes=[1, 2], on=True)", "my.module:Thing", {"sizes": [1, 2], "on": True}),
        ("l2()", "l2", {}),
    ],
)
def test_names_with_options_are_parsed(text, name, options):
    named = parse_named(text)
    assert (named.name, named.options) == (name, options)


@pytest.mark.parametrize(
    "text", ["lp(", "lp(p=1", "lp(1)", "lp(p=f(1))", "lp(**p)", "lp(p=1)x", "(p=1)", "lp(p=1, p=2)", "lp(p=1)(p=2)"]
)
def test_other_forms_are_refused(text):
    with pytest.raises(InputError, match=r"expected NAME or NAME\(option=value"):
        parse_named(text)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("lp(q=1)", UnknownNameError, "unknown `lp` option 'q': known: normalise, p, reduce"),
        ("l2(redcue=max)", UnknownNameError, "did you mean reduce"),
        ("l22", UnknownNameError, "did you mean"),
        ("lp(p=0)", InputError, "`p` must be above 0, got 0"),
        ("lp(p=much)", InputError, "a number above 0"),
        ("kse(neighbours=many)", InputError, "`kse` option `neighbours` must be a whole number, got the str 'many'"),
        ("kse(neighbours=2.5)", InputError, "must be a whole number, got the float 2.5; write for example kse"),
        ("taylor(form=cubic)", InputError, "squared or absolute"),
        ("obs(damp=0)", InputError, "above 0"),
        ("apoz(threshold=-1)", InputError, "at least 0"),
        ("l2(normalise=batch)", InputError, "none, layer, global"),
        ("l2(reduce=median)", InputError, "sum, mean, max"),
    ],
)
def test_options_are_checked(spec, error, message):
    with pytest.raises(error, match=message):
        scorer(spec)


@pytest.mark.parametrize("name", ALL)
def test_options_of_every_criterion(name):
    model, graph = mixed()
    data = pictures(8, 5)
    plain, layer, whole = (
        scorer(f"{name}(normalise={how})").scores(model, graph, seed=1, data=data)
        for how in ("none", "layer", "global")
    )
    everything = float(torch.cat(list(plain.values())).double().mean())
    for group in graph.free_groups:
        assert float(layer[group.name].double().mean()) == pytest.approx(1, rel=1e-4)
        torch.testing.assert_close(whole[group.name] * everything, plain[group.name])
        assert float(plain[group.name].min()) >= 0
    mean = scorer(f"{name}(reduce=mean)").scores(model, graph, seed=1, data=data)
    assert all(torch.isfinite(value).all() for value in mean.values())


def test_a_criterion_that_needs_data_says_so():
    assert [name for name in ALL if scorer(name).needs_data] == [
        "apoz", "lasso", "obd", "obs", "taylor", "thinet",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"the criterion 'apoz' needs data; give some with `data=` \(`--data`\)"):
        nasprune.search(TinyResNet(), EXAMPLE, "60%", criterion="apoz")


def test_a_search_by_a_criterion_with_data_and_options():
    spec = "obs(damp=0.1, normalise=layer)"
    options = {"controller": "uniform", "evaluator": "importance", "trials": 3}
    result = nasprune.search(
        TinyResNet(depth=1), EXAMPLE, "60%", data=images(), criterion=spec, allow_chance=True, **options
    )
    assert result.report.settings["criterion"] == spec
    assert result.report.proof.ok


class Hungry(Criterion):
    def score(self, group, context):
        return next(context.activations(group)).mean(0)


def test_data_is_for_those_who_ask():
    model, graph = mixed()
    scorer = Scorer("hungry", Hungry)
    with pytest.raises(InputError, match="needs_data = True"):
        scorer.scores(model, graph, data=pictures(8, 5))


def test_combine_is_the_sum_mean_or_max():
    model, graph = mixed()
    group = graph.group("stem")
    parts = [torch.arange(8.0), torch.ones(8)]
    for reduce, expected in (("sum", parts[0] + 1), ("mean", (parts[0] + 1) / 2), ("max", parts[0].clamp(min=1))):
        torch.testing.assert_close(WeightContext(model, graph, reduce=reduce).combine(parts, group), expected)
    assert WeightContext(model, graph).combine([], group).tolist() == [0.0] * 8
