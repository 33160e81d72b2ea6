"""What the context measures, against hooks, masks and autograd on the model itself."""

from __future__ import annotations

from random import Random

import pytest
import torch
from torch import nn
from torch.nn import functional

from nasprune import registry
from nasprune.calibration import statistics
from nasprune.calibration.layers import patches, weight_matrix
from nasprune.calibration.scoring import WeightContext
from nasprune.errors import InputError
from tests.criteria.nets import chain, mixed, pictures


@pytest.fixture(scope="module")
def context():
    model, graph = mixed()
    return WeightContext(model, graph, seed=1, data=pictures(8, 5))


def inputs_of(model: nn.Module, name: str, images: torch.Tensor) -> torch.Tensor:
    seen = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(images)
    handle.remove()
    return seen[0]


def units_of(graph, param: str, axis: int):
    """(group name, index) of every position along an axis."""
    units = next(item for item in graph.params[param] if item.axis == axis).units.reshape(-1)
    return [(graph.groups[graph.unit_group[u]].name, int(graph.unit_index[u])) if u >= 0 else None for u in units]


CONSUMERS = [("stem", "inner"), ("stem", "split"), ("stem", "side"), ("split", "join"), ("side", "join")]


@pytest.mark.parametrize(("name", "reader"), [*CONSUMERS, ("join", "head")])
def test_activations_are_what_the_consumers_read(context, name, reader):
    model, graph = mixed()
    group = graph.group(name)
    index = [part.param for part in group.slices if part.role == "in"].index(f"{reader}.weight")
    found = list(context.activations(group))[index]
    read = inputs_of(model, reader, pictures(8, 5).images)
    flat = read.movedim(1, -1).reshape(-1, read.shape[1])
    sums = torch.zeros(group.width)
    squares = torch.zeros(group.width)
    for channel, owner in enumerate(units_of(graph, f"{reader}.weight", 1)):
        if owner is not None and owner[0] == name:
            sums[owner[1]] += flat[:, channel].sum()
            squares[owner[1]] += flat[:, channel].square().sum()
    torch.testing.assert_close(found.sum(0), sums, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.square().sum(0), squares, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("name", "reader"), [*CONSUMERS, ("join", "head")])
def test_gradients_are_derivatives_by_a_factor_on_the_unit(context, name, reader):
    model, graph = mixed()
    group, data = graph.group(name), pictures(8, 5)
    index = [part.param for part in group.slices if part.role == "in"].index(f"{reader}.weight")
    found = list(context.gradients(group))[index]
    owners = units_of(graph, f"{reader}.weight", 1)
    order = Random(1).sample(range(24), 24)
    for unit in (0, group.width - 1):
        channels = torch.tensor([owner == (name, unit) for owner in owners]).float()
        for row in (0, 5):
            losses = []
            for step in (1e-2, -1e-2):
                channel_axis = 1
                factor = (1 + step * channels).reshape([-1 if axis == channel_axis else 1 for axis in range(4)])
                factor = factor.flatten() if reader == "head" else factor
                handle = model.get_submodule(reader).register_forward_pre_hook(lambda _, args, f=factor: args[0] * f)
                with torch.no_grad():
                    output = model(data.images[order[row]][None])
                handle.remove()
                losses.append(functional.cross_entropy(output.double(), data.labels[order[row]][None]))
            slope = float(losses[0] - losses[1]) / 2e-2
            assert float(found[row, unit]) == pytest.approx(slope, rel=0.02, abs=1e-4)


def test_fisher_is_the_mean_squared_gradient_of_each_image(context):
    model, graph = chain()
    data = pictures(6, 4)
    context = WeightContext(model, graph, seed=1, data=data)
    expected = torch.zeros_like(model.first.weight)
    for image, label in zip(data.images, data.labels, strict=True):
        loss = functional.cross_entropy(model(image[None]), label[None])
        expected += torch.autograd.grad(loss, model.first.weight)[0].square() / len(data)
    (found,) = context.fisher(graph.group("first"))
    torch.testing.assert_close(found, expected.flatten(1))


@pytest.mark.parametrize(("name", "reader"), [*CONSUMERS, ("join", "head")])
def test_grams_give_the_change_of_the_output_when_units_are_masked(context, name, reader):
    model, graph = mixed()
    group, layer = graph.group(name), model.get_submodule(reader)
    index = [part.param for part in group.slices if part.role == "in"].index(f"{reader}.weight")
    gram = list(context.grams(group))[index]
    read = inputs_of(model, reader, pictures(8, 5).images)
    gone = {(name, 0), (name, 2), (name, group.width - 1)}
    mask = torch.tensor([owner not in gone for owner in units_of(graph, f"{reader}.weight", 1)])
    masked = read * mask.reshape([-1 if axis == 1 else 1 for axis in range(read.ndim)])
    change = (layer(read) - layer(masked)).square().sum().detach()
    chosen = torch.tensor(sorted(unit for _, unit in gone))
    form = gram.contributions()[chosen][:, chosen].sum() * gram.samples
    torch.testing.assert_close(form.float(), change, rtol=1e-3, atol=1e-4)


def test_the_covariance_is_that_of_the_patches():
    model, graph = chain()
    data = pictures(6, 4)
    (gram,) = WeightContext(model, graph, data=data).grams(graph.group("first"))
    rows = patches(model.second, inputs_of(model, "second", data.images)).flatten(1)
    torch.testing.assert_close(gram.covariance, torch.cov(rows.T, correction=0), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(gram.moments(), rows.T @ rows / len(rows), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(gram.weight.flatten(1), weight_matrix(model.second)[0].T.detach())
    assert gram.samples == len(rows)


def test_large_grams_come_in_parts(monkeypatch):
    model, graph = chain()
    monkeypatch.setattr("nasprune.calibration.grams.FEATURES", 20)
    parts = list(WeightContext(model, graph, data=pictures(6, 4)).grams(graph.group("first")))
    assert [part.covariance.shape[0] for part in parts] == [18, 18, 18]
    torch.testing.assert_close(torch.cat([part.weight for part in parts], 2), model.second.weight.detach().flatten(2))


def test_rows_are_bounded_and_little_memory_gives_the_same(monkeypatch):
    model, graph = mixed()
    monkeypatch.setattr(statistics, "ROWS", 100)
    first = WeightContext(model, graph, seed=1, data=pictures(8, 5))
    activations = {group.name: list(first.activations(group)) for group in graph.free_groups}
    assert all(len(one) <= 130 for found in activations.values() for one in found)
    grams = {group.name: list(first.grams(group)) for group in graph.free_groups}
    monkeypatch.setattr(statistics, "MEMORY", 1)
    second = WeightContext(model, graph, seed=1, data=pictures(8, 5))
    for group in graph.free_groups:
        for one, other in zip(activations[group.name], second.activations(group), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
        for one, other in zip(grams[group.name], second.grams(group), strict=True):
            torch.testing.assert_close(one.covariance, other.covariance, rtol=0, atol=0)


def test_kernels_hold_the_weights_of_each_unit(context):
    model, graph = mixed()
    (kernels,) = context.kernels(graph.group("split"))
    owners = units_of(graph, "join.weight", 1)
    weight = model.join.weight.detach()[:, :, 0, 0]
    for unit in range(12):
        channels = [channel for channel, owner in enumerate(owners) if owner == ("split", unit)]
        assert len(channels) == 2
        torch.testing.assert_close(kernels[unit], weight[:, channels])


def test_the_model_is_left_as_found():
    model, graph = mixed()
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    context = WeightContext(model, graph, seed=1, data=pictures(8, 5))
    try:
        for group in graph.free_groups:
            slopes = list(context.gradients(group))
            assert any(float(slope.abs().sum()) > 0 for slope in slopes)
            list(context.activations(group)), list(context.fisher(group)), list(context.grams(group))
        assert all(module.training for module in model.modules())
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert all(value.grad is None and not value.requires_grad for value in model.parameters())
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert torch.equal(random, torch.get_rng_state())
    finally:
        model.eval().requires_grad_(True)


def test_labels_without_an_output_are_refused():
    model, graph = chain()
    with pytest.raises(InputError, match=r"outputs \(\d+, 4\), labels from \d to \d"):
        list(WeightContext(model, graph, data=pictures(6, 9)).gradients(graph.group("first")))


def test_without_data_there_are_no_activations():
    model, graph = chain()
    with pytest.raises(InputError, match="needs_data = True"):
        WeightContext(model, graph).activations(graph.group("first"))


def test_what_takes_too_much_memory_is_ranked_without_it(monkeypatch, caplog):
    model, graph = mixed()
    context = WeightContext(model, graph, seed=1, data=pictures(8, 5))
    group = graph.group("join")
    plain = torch.stack([rows.square().sum(1) for rows in context.rows(group)]).mean(0)
    monkeypatch.setattr(statistics, "LARGEST", 1)
    torch.testing.assert_close(registry.load("criteria", "obs")().score(group, context), plain)
    assert f"group 'join' has {group.width} units in all" in caplog.text
    monkeypatch.undo()
    assert list(context.grams(group))
