"""Searches whose budget limits what is not zero: exact counts, any space, saved, loaded and trained on."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn

import nasprune
from nasprune.cost.budget import Budget
from nasprune.cut.weight_masks import count_nonzeros
from nasprune.errors import BudgetError, InputError
from nasprune.graph.capture import submodule
from nasprune.refit.sites import sites
from nasprune.run import search as story
from nasprune.run.recorded import recorded
from nasprune.run.spaces import spaces_of
from nasprune.run.trace import trace
from nasprune.sparse.layers import targets, uses
from nasprune.sparse.patterns import Pattern
from tests.nets import EXAMPLE, TinyResNet, images

search = partial(story.search, allow_chance=True, data=images(), seed=0)


@pytest.fixture(scope="module")
def model():
    return TinyResNet(8, 2)


@pytest.fixture(scope="module")
def result(model):
    return search(model, EXAMPLE, "30%NNZ")


def test_the_budget_is_kept_and_the_count_exact(result, model):
    dense, left = count_nonzeros(model), count_nonzeros(result.model)
    assert result.report.sparsity.dense == dense
    assert result.report.sparsity.cut == left
    assert 0.28 * dense < left <= 0.3 * dense
    zeros = sum(layer.size - layer.kept for layer in result.report.sparsity.layers)
    assert result.plan.masks.zeros == zeros == result.report.proof.zeros
    assert not result.plan.counts
    assert result.report.proof.ok
    assert nasprune.verify(model, result.model, result.graph, result.plan).ok
    assert any(note.startswith("Zeros alone make nothing faster on a CPU") for note in result.report.notes)


def test_the_same_seed_gives_the_same_zeros(result, model, tmp_path):
    again = search(model, EXAMPLE, "30%NNZ", out=tmp_path)
    assert again.plan == result.plan
    assert torch.equal(again.model.state_dict()["head.weight"], result.model.state_dict()["head.weight"])
    resumed = search(model, EXAMPLE, "30%NNZ", out=tmp_path)
    assert resumed.plan == result.plan


def test_saved_loaded_polished_and_tuned_zeros_stay(result, model, tmp_path):
    nasprune.save(result, tmp_path)
    assert count_nonzeros(nasprune.load(tmp_path, model=TinyResNet(8, 2))) == count_nonzeros(result.model)
    page = (tmp_path / "report.html").read_text()
    assert "Zeros inside of weights" in page
    assert "## Zeros inside of weights" in (tmp_path / "report.md").read_text()
    tuned = nasprune.finetune(result, images(), epochs=1, lr=0.01, device="cpu")
    polished = nasprune.polish(result, model, images(), steps=8).model
    for net in (tuned, polished):
        assert result.plan.masks.filled(net) is None
        nasprune.save(result, tmp_path, model=net)


@pytest.mark.parametrize(
    "options",
    [
        {"sparsifier": "magnitude"},
        {"sparsifier": "magnitude(refit=False, normalise=layer)", "space": "weights(spread=global)"},
        {"sparsifier": "obd"},
        {"sparsifier": "nettrim(epsilon=0.2)"},
        {"space": "weights(spread=uniform)"},
        {"space": "weights(pattern='block:2')"},
        {"space": "kernels"},
    ],
    ids=str,
)
def test_every_method_spread_and_pattern_keeps_the_budget(options, model):
    found = search(model, EXAMPLE, "50%NNZ", **options)
    assert count_nonzeros(found.model) <= count_nonzeros(model) // 2
    assert found.report.proof.ok


@pytest.mark.parametrize("options", [{}, {"sparsifier": "obd"}, {"space": "widths+weights"}], ids=str)
def test_a_network_in_double_precision_gets_zeros_and_stays_so(options, model):
    inputs, labels = images()
    dense = copy.deepcopy(model).double()
    found = search(dense, EXAMPLE.double(), "40%NNZ", data=(inputs.double(), labels), **options)
    assert count_nonzeros(found.model) <= 0.4 * count_nonzeros(dense)
    assert found.report.proof.ok
    assert {value.dtype for value in found.model.parameters()} == {torch.float64}


def test_zeros_that_a_second_search_fills_are_said_unless_its_budget_limits_them(result, model):
    def filled(found):
        return [note for note in found.report.notes if "that were zero are not any more" in note]

    second = search(result.model, EXAMPLE, "80%")
    again = count_nonzeros(second.model)
    assert again > count_nonzeros(result.model)
    assert len(filled(second)) == 1
    assert int(filled(second)[0].split()[0].replace(",", "")) <= again
    limited = search(result.model, EXAMPLE, "80%,90%NNZ")
    assert count_nonzeros(limited.model) <= 0.9 * count_nonzeros(result.model)
    untouched = story.search(result.model, EXAMPLE, "80%", seed=0)
    assert not any(map(filled, (limited, untouched, search(model, EXAMPLE, "80%"))))
    assert not nasprune.compose(model, result, second).masks
    assert nasprune.compose(model, result, limited).masks == limited.plan.masks


def test_kernels_go_whole(model):
    found = search(model, EXAMPLE, "60%NNZ", space="kernels")
    for name, mask in found.plan.masks.items():
        assert mask.ndim == 4, name
        assert mask.flatten(2).all(2).eq(mask.flatten(2).any(2)).all()


def test_two_of_four_weights_stay(model):
    found = search(model, EXAMPLE, "70%NNZ", space="weights(pattern='2:4', exclude='head')")
    assert found.plan.masks
    for mask in found.plan.masks.values():
        assert mask.movedim(1, -1).reshape(-1, 4).sum(1).eq(2).all()
    assert "head.weight" not in found.plan.masks


def test_widths_and_weights_together(model):
    found = search(model, EXAMPLE, "60%,25%NNZ", space_options={"divisor": 2})
    assert found.plan.counts
    assert found.report.cut.flops <= 0.6 * found.report.dense.flops
    assert count_nonzeros(found.model) <= 0.25 * count_nonzeros(model)
    assert nasprune.verify(model, found.model, found.graph, found.plan).ok
    assert found.report.settings["space"] == "widths+weights"


def test_how_much_widths_take_is_tried_where_the_budget_does_not_say(model, tmp_path):
    options = {"space": "widths+weights", "space_options": {"divisor": 2}, "out": tmp_path}
    found = search(model, EXAMPLE, "10%NNZ", **options)
    assert count_nonzeros(found.model) <= 0.1 * count_nonzeros(model)
    assert found.report.proof.ok
    note = next(note for note in found.report.notes if note.startswith("Shares of the FLOPs that widths"))
    assert "100.0%: " in note
    assert "95.0%: " in note
    written = recorded(tmp_path / "trials.jsonl")
    shares = [frozen["share of the FLOPs"] for frozen, _ in written.rounds]
    assert list(dict.fromkeys(shares))[:2] == ["100.0%", "95.0%"]
    assert all(trials for _, trials in written.rounds)
    assert search(model, EXAMPLE, "10%NNZ", **options).plan == found.plan
    assert recorded(tmp_path / "trials.jsonl") == written


def test_a_joint_search_that_was_broken_off_goes_on_from_its_trials(model, tmp_path):
    options = {"space": "widths+weights", "space_options": {"divisor": 2}}
    found = search(model, EXAMPLE, "10%NNZ", **options, out=tmp_path)
    file = tmp_path / "trials.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:5]))  # settings, the whole network, and the beginning of the next share
    again = search(model, EXAMPLE, "10%NNZ", **options, out=tmp_path)
    assert again.plan == found.plan
    assert file.read_bytes().splitlines(keepends=True)[:5] == lines[:5]
    assert len(file.read_bytes().splitlines()) == len(lines)


@pytest.mark.parametrize(
    ("budget", "options"), [("50NNZ", {}), ("60%,1%NNZ", {}), ("20NNZ", {"space": "widths+weights"})]
)
def test_a_budget_that_zeros_do_not_reach_leaves_no_record(budget, options, model, tmp_path):
    with pytest.raises(BudgetError):
        search(model, EXAMPLE, budget, out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_every_layer_is_a_step_of_the_progress(model):
    steps = []
    search(model, EXAMPLE, "30%NNZ", on_phase=steps.append)
    layers = len(
        targets(model, sites(model, graph := trace(model, EXAMPLE), nasprune.PrunePlan(graph.signature)), Pattern())
    )
    shown = [(step.done, step.of) for step in steps if step.phase == "pricing zeros"]
    first = shown[1][1]
    assert first > layers
    assert set(range(first - layers, first)) <= {done for done, of in shown if of == first}
    assert [done for done, of in shown if of == first] == sorted(done for done, of in shown if of == first)


def test_multiply_adds_with_zeros_are_counted(model):
    graph = trace(model, EXAMPLE)
    part = submodule(model, None)
    found = targets(part, sites(part, graph, nasprune.PrunePlan(graph.signature)), Pattern())
    times = uses(part, graph, found)
    with_weights = sum(times[path] * target.size for path, target in found.items())
    dense = nasprune.predict(graph, nasprune.search_space(graph).largest()).flops
    assert 0.9 * dense < with_weights <= dense
    result = search(model, EXAMPLE, "40%NNZFLOPs")
    zeros = sum(times[layer.layer] * (layer.size - layer.kept) for layer in result.report.sparsity.layers)
    assert 0.38 * dense < dense - zeros <= 0.4 * dense


@pytest.mark.parametrize(
    ("budget", "space", "words"),
    [
        ("60%", "weights", "does not say how many; add for example 20%NNZ"),
        ("20%NNZ", "widths", r"no zeros inside of weights; write --space widths\+weights"),
        ("60%,20%NNZ", "weights", r"limits them; write --space widths\+weights"),
        ("20%NNZ", "weights+kernels", "expected a space such as"),
        ("20%NNZ", "weights(pattern='3')", "expected a pattern of zeros such as"),
        ("20%NNZ", "weights(spread='some')", "expected `spread` to be one of harm, global, uniform"),
        ("20%NNZ", "weights(pattern='2:4', spread='global')", "has no threshold over all layers"),
    ],
)
def test_budgets_and_spaces_that_do_not_fit_are_refused(budget, space, words):
    with pytest.raises(InputError, match=words):
        spaces_of(space, Budget.parse(budget), {})


def test_what_cannot_be_done_is_said(model):
    with pytest.raises(BudgetError, match=r"reach [\d,]+ of [\d,]+ at least; ask for more, or let widths go, too"):
        search(model, EXAMPLE, "50NNZ")
    with pytest.raises(BudgetError, match="at least; ask for more, or let widths take more"):
        search(model, EXAMPLE, "60%,1%NNZ")
    with pytest.raises(InputError, match="chosen by calibration images; give some with `data=`"):
        search(model, EXAMPLE, "20%NNZ", data=None)
    with pytest.raises(InputError, match="the budget asks for no zeros; add for example 20%NNZ"):
        search(model, EXAMPLE, "60%", sparsifier="obd")
    with pytest.raises(InputError, match="no layer can have zeros in the pattern block:64"):
        search(model, EXAMPLE, "90%NNZ", space="weights(pattern='block:64')")
    wide = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Upsample(scale_factor=5), nn.Flatten(), nn.Linear(6_400, 4))
    with pytest.raises(
        BudgetError, match=r"ask for more.*\. 3 \(6,400\) keeps all weights: its features are more than"
    ):
        search(wide, EXAMPLE, "1%NNZ")
    with pytest.raises(BudgetError, match="limits NNZ and NNZFLOPs; give one of the two"):
        Budget.parse("20%NNZ,20%NNZFLOPs")
    with pytest.raises(BudgetError, match="the strategy 'soft' keeps budgets of what widths cost"):
        nasprune.prune(model, EXAMPLE, "20%NNZ", data=images(), epochs=1, strategy="soft")
