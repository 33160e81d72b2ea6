"""Zeros inside of weights: masks in a plan, built, proved, saved beside it, loaded in another process, and damaged."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import pytest
import torch

import nasprune
from nasprune.cut.weight_masks import WeightMasks, count_nonzeros
from nasprune.errors import InputError, PlanError
from nasprune.run.checkpoint import load, read_plan, save
from nasprune.run.trace import trace
from tests.forks import forked
from tests.toys import tiny_net, tiny_outcome


@dataclass(frozen=True)
class _Cut:
    plan: nasprune.PrunePlan
    graph: nasprune.ModelGraph


@pytest.fixture(scope="module")
def model():
    return tiny_net(seed=3)


@pytest.fixture(scope="module")
def graph(model):
    return trace(model, torch.zeros(1, 1, 8, 8))


@pytest.fixture(scope="module")
def outcome(graph, model):
    """Half of the widths, and three quarters of the weights of what is left."""
    cut = tiny_outcome(graph, model)
    weights = {name: value for name, value in cut.model.named_parameters() if value.ndim > 1}
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(value.shape, generator=generator) < 0.25 for name, value in weights.items()}
    plan = replace(cut.plan, masks=WeightMasks(masks))
    return replace(cut, plan=plan, model=nasprune.build(model, graph, plan))


def test_masked_weights_are_exactly_zero_and_counted(model, graph, outcome):
    dense = sum(value.numel() for value in tiny_outcome(graph, model).model.parameters())
    before = count_nonzeros(tiny_outcome(graph, model).model)
    gone = sum(
        int(value.detach()[~outcome.plan.masks[name]].count_nonzero())
        for name, value in tiny_outcome(graph, model).model.named_parameters()
        if name in outcome.plan.masks
    )
    assert 0 < outcome.plan.masks.zeros < dense
    assert count_nonzeros(outcome.model) == before - gone
    assert "weights zero" in repr(outcome.plan)


def test_the_dense_net_with_the_same_zeros_gives_the_same(model, graph, outcome):
    proof = nasprune.verify(model, outcome.model, graph, outcome.plan)
    assert proof.ok
    assert proof.zeros == outcome.plan.masks.zeros
    other = dict(outcome.plan.masks)
    name = next(iter(other))
    other[name] = ~other[name]
    moved = replace(outcome.plan, masks=WeightMasks(other))
    refuted = nasprune.verify(model, outcome.model, graph, moved)
    assert not refuted.ok
    assert refuted.reason == f"{name!r} is not zero where the plan masks it"


def test_a_mask_in_the_wrong_place_is_seen_in_what_the_net_gives(model, graph, outcome, monkeypatch):
    monkeypatch.setattr(WeightMasks, "on_dense", lambda *_: {})
    assert "outputs differ" in nasprune.verify(model, outcome.model, graph, outcome.plan).reason


def test_masks_come_back_in_another_process(tmp_path, outcome):
    save(outcome, tmp_path)
    assert read_plan(tmp_path) == outcome.plan
    assert torch.equal(load(tmp_path, tiny_net()).conv1.weight, outcome.model.conv1.weight)
    there = forked(lambda: print(count_nonzeros(nasprune.load(tmp_path, model=tiny_net()))), tmp_path)
    assert int(there.ended()) == count_nonzeros(outcome.model)


def test_plans_with_other_masks_differ(outcome):
    assert outcome.plan == replace(outcome.plan, masks=WeightMasks(dict(outcome.plan.masks)))
    assert outcome.plan != replace(outcome.plan, masks=WeightMasks())
    with pytest.raises(PlanError, match=r"needs a file for its masks .* nasprune.save"):
        outcome.plan.to_json()


def test_damaged_and_missing_masks_get_one_line(tmp_path, outcome):
    save(outcome, tmp_path)
    path = tmp_path / "masks.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"masks '.*' are damaged or from another save"):
        load(tmp_path, tiny_net())
    path.unlink()
    with pytest.raises(InputError, match=r"cannot read masks .*: No such file"):
        load(tmp_path, tiny_net())


def test_a_save_without_masks_leaves_none_of_an_earlier_one(tmp_path, outcome, graph, model):
    save(outcome, tmp_path)
    save(tiny_outcome(graph, model), tmp_path)
    assert not (tmp_path / "masks.safetensors").exists()
    assert not read_plan(tmp_path).masks


def test_weights_that_filled_their_zeros_are_not_saved(tmp_path, outcome, graph, model):
    with pytest.raises(InputError, match=r"other than zero where the plan masks them; fine-tune the result itself"):
        save(replace(outcome, model=tiny_outcome(graph, model).model), tmp_path)


def test_masks_that_do_not_fit_are_refused(outcome, graph, model):
    with pytest.raises(PlanError, match=r"must be a boolean tensor, got torch.float32"):
        WeightMasks({"conv1.weight": torch.ones(3)})
    with pytest.raises(PlanError, match=r"masks 'conv1.weight' by a mask of shape \[3\], the cut model's has shape"):
        nasprune.build(model, graph, replace(outcome.plan, masks=WeightMasks({"conv1.weight": torch.ones(3) > 0})))
    with pytest.raises(PlanError, match=r"masks 'conv9.weight', which the cut model does not have"):
        nasprune.build(model, graph, replace(outcome.plan, masks=WeightMasks({"conv9.weight": torch.ones(3) > 0})))


def test_masks_of_a_later_round_are_of_the_final_net(model, graph, outcome):
    first = _Cut(outcome.plan, graph)
    small = outcome.model
    again = trace(small, torch.zeros(1, 1, 8, 8))
    name = next(name for name, value in small.named_parameters() if value.ndim > 1)
    masks = WeightMasks({name: torch.zeros_like(dict(small.named_parameters())[name], dtype=torch.bool)})
    second = _Cut(nasprune.PrunePlan(again.signature, masks=masks), again)
    composed = nasprune.compose(model, first, second)
    assert composed.keep == first.plan.keep
    assert composed.masks == masks
    built = nasprune.build(model, graph, composed)
    assert not dict(built.named_parameters())[name].any()


def test_the_names_of_torchs_own_pruning_are_given_on_request(outcome):
    small, x = copy.deepcopy(outcome.model), torch.randn(2, 1, 8, 8)
    outcome.plan.masks.register(small)
    assert {name for name, _ in small.named_buffers() if name.endswith("weight_mask")} == {
        f"{name}_mask" for name in outcome.plan.masks
    }
    assert torch.equal(small(x), outcome.model(x))
