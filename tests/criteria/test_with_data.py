"""Criteria over data, each against brute force, autograd or scikit-learn on the model itself."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch.nn import functional

from nasprune import ConsumerGram, registry
from nasprune.calibration.layers import patches
from nasprune.calibration.scoring import WeightContext
from nasprune.run.names import scorer
from tests.criteria.nets import chain, mixed, pictures


def scores(spec: str, name: str, net=chain, data=None) -> torch.Tensor:
    model, graph = net()
    data = data or (pictures(6, 4) if net is chain else pictures(8, 5))
    return scorer(spec).scores(model, graph, seed=2, data=data)[name]


def read_by_second() -> torch.Tensor:
    """What the second convolution of the chain reads, (24, 6, 6, 6)."""
    model, _ = chain()
    with torch.no_grad():
        return model.first(pictures(6, 4).images).relu()


def test_apoz_counts_zeros():
    read = read_by_second()
    shares = (read != 0).double().mean(dim=(0, 2, 3))
    torch.testing.assert_close(scores("apoz", "first").double(), shares, rtol=1e-5, atol=1e-6)
    above = (read > 0.3).double().mean(dim=(0, 2, 3))
    torch.testing.assert_close(scores("apoz(threshold=0.3)", "first").double(), above, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["squared", "absolute"])
def test_taylor_by_the_weights_that_read_the_unit(form):
    """A factor on an input has the derivative that a factor on the weights reading it has."""
    model, _ = chain()
    data = pictures(6, 4)
    slopes = []
    for image, label in zip(data.images, data.labels, strict=True):
        loss = functional.cross_entropy(model(image[None]), label[None])
        (slope,) = torch.autograd.grad(loss, model.second.weight)
        slopes.append((slope * model.second.weight.detach()).sum(dim=(0, 2, 3)))
    stacked = torch.stack(slopes)
    expected = stacked.square().mean(0) if form == "squared" else stacked.mean(0).abs()
    torch.testing.assert_close(scores(f"taylor(form={form})", "first"), expected, rtol=1e-3, atol=1e-7)


def test_obd_by_autograd_image_by_image():
    model, _ = chain()
    data = pictures(6, 4)
    total = torch.zeros(6)
    for image, label in zip(data.images, data.labels, strict=True):
        loss = functional.cross_entropy(model(image[None]), label[None])
        (slope,) = torch.autograd.grad(loss, model.first.weight)
        total += 0.5 * (slope * model.first.weight.detach()).square().sum(dim=(1, 2, 3)) / len(data)
    torch.testing.assert_close(scores("obd", "first"), total, rtol=1e-4, atol=1e-9)


def test_thinet_by_masking_the_input():
    model, _ = chain()
    read = read_by_second()
    full = model.second(read).detach()
    positions = full.shape[0] * full.shape[2] * full.shape[3]

    def change(gone: list[int]) -> float:
        masked = read.clone()
        masked[:, gone] = 0
        return float((model.second(masked) - full).detach().double().square().sum()) / positions

    order: list[int] = []
    expected = {}
    while len(order) < 6:
        best = min((unit for unit in range(6) if unit not in order), key=lambda unit: change([*order, unit]))
        damage = change([*order, best]) - change(order)
        expected[best] = (expected[order[-1]] if order else 0.0) + max(damage, 0.0)
        order.append(best)
    found = scores("thinet", "first")
    assert found.argsort().tolist() == order
    np.testing.assert_allclose(found.numpy(), [expected[unit] for unit in range(6)], rtol=1e-4)


def test_lasso_selects_what_scikit_learn_selects():
    model, _ = chain()
    rows = patches(model.second, read_by_second())[:, 0].reshape(-1, 6, 9).double()
    weight = model.second.weight.detach().double().flatten(2)
    design = torch.einsum("ncf,ocf->noc", rows, weight).reshape(-1, 6).numpy()
    entry = scores("lasso", "first").double().numpy()
    levels = np.sort(entry)
    for low, high in itertools.pairwise([levels[0] * 0.5, *levels]):
        if high / low < 1.02:
            continue
        penalty = (low * high) ** 0.5
        fitted = Lasso(alpha=penalty / len(weight), fit_intercept=False, tol=1e-10, max_iter=100_000)
        fitted.fit(design, design.sum(axis=1))
        assert set(np.flatnonzero(fitted.coef_)) == set(np.flatnonzero(entry > penalty))


def test_lasso_ranks_small_contributions_like_large_ones():
    model, _ = chain()
    kept = model.second.weight.detach().clone()
    large = scores("lasso", "first")
    try:
        with torch.no_grad():
            model.second.weight.mul_(1e-6)
        small = scores("lasso", "first")
    finally:
        with torch.no_grad():
            model.second.weight.copy_(kept)
    torch.testing.assert_close(small * 1e12, large, rtol=1e-3, atol=0)


def test_obs_by_least_squares():
    """Each removal costs what the best linear fit of the output, with a bias, on the remaining inputs misses."""
    model, _ = chain()
    rows = patches(model.second, read_by_second())[:, 0].double()
    target = rows @ model.second.weight.detach().double().flatten(1).T

    def missed(gone: list[int]) -> float:
        left = [unit for unit in range(6) if unit not in gone]
        columns = [rows.reshape(len(rows), 6, 9)[:, left].flatten(1), torch.ones(len(rows), 1, dtype=rows.dtype)]
        design = torch.cat(columns, 1)
        fit = design @ torch.linalg.lstsq(design, target, driver="gelsd").solution
        return float((fit - target).square().sum()) / len(rows)

    data = pictures(6, 4)
    found = scores("obs(damp=1e-7)", "first", data=data)
    order: list[int] = []
    while len(order) < 6:
        order.append(min((unit for unit in range(6) if unit not in order), key=lambda unit: missed([*order, unit])))
    assert found.argsort().tolist() == order
    np.testing.assert_allclose(found[order].numpy(), [missed(order[: i + 1]) for i in range(6)], rtol=2e-3, atol=1e-5)


def test_obs_over_several_layers_by_solving_anew_for_every_set():
    """The stem is read by three layers, one of them grouped; their costs add up."""
    model, graph = mixed()
    group = graph.group("stem")
    forms = []
    for gram in WeightContext(model, graph, seed=2, data=pictures(8, 5)).grams(group):
        k = gram.weight.shape[2]
        moments = gram.covariance.double()
        moments += 0.01 * moments.diagonal().mean() * torch.eye(len(moments), dtype=torch.float64)
        forms.append((gram.weight.double().flatten(1), moments, k))
    assert len(forms) == 3

    def cost(gone: list[int]) -> float:
        total = 0.0
        for weight, moments, k in forms:
            left = torch.tensor([unit * k + i for unit in range(group.width) if unit not in gone for i in range(k)])
            change = weight.clone()
            if len(left):
                solved = torch.linalg.solve(moments[left][:, left], moments[left] @ weight.T).T
                change[:, left] -= solved
            total += float((change @ moments * change).sum())
        return total

    order: list[int] = []
    while len(order) < group.width:
        order.append(min((u for u in range(group.width) if u not in order), key=lambda u: cost([*order, u])))
    found = scores("obs", "stem", mixed)
    assert found.argsort().tolist() == order
    np.testing.assert_allclose(found[order].numpy(), [cost(order[: i + 1]) for i in range(group.width)], rtol=1e-3)


@dataclass(frozen=True)
class Grams:
    """A context that gives these Gram matrices."""

    found: Sequence[ConsumerGram]

    def grams(self, group):
        return iter(self.found)

    def combine(self, costs, group):
        return torch.stack(list(costs)).sum(dim=0)


def redundant_grams(width: int, k: int, *, pairs: bool) -> Grams:
    """Two layers on features of which a few directions carry most; with `pairs`, neighbours are almost equal."""
    drawn = torch.Generator().manual_seed(0)
    found = []
    for out in (5, width):
        features = torch.randn(4000, width * k // 4, generator=drawn) @ torch.randn(
            width * k // 4, width * k, generator=drawn
        )
        features += 3 * torch.randn(features.shape, generator=drawn)
        if pairs:
            blocks = features.reshape(4000, width // 2, 2, k)
            blocks[:, :, 1] = blocks[:, :, 0] + 0.01 * torch.randn(4000, width // 2, k, generator=drawn)
        features -= features.mean(dim=0)
        weight = torch.randn(out, width, k, generator=drawn)
        parts = torch.zeros(width * k, dtype=torch.long)
        found.append(ConsumerGram(weight, features.T @ features / 4000, torch.zeros(width * k), parts, 4000))
    return Grams(found)


def obs_scores(monkeypatch, context: Grams, width: int, pool: int) -> torch.Tensor:
    obs = registry.load("criteria", "obs")
    monkeypatch.setitem(obs.score.__globals__, "POOL_UNITS", pool)
    monkeypatch.setitem(obs.score.__globals__, "POOL", 10**9)
    return obs().score(SimpleNamespace(width=width), context)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("pool", [1, 3, 10])
def test_obs_with_a_pool_is_obs_unit_by_unit(monkeypatch, k, pool):
    context = redundant_grams(24, k, pairs=False)
    single, pooled = (obs_scores(monkeypatch, context, 24, size) for size in (24, pool))
    assert torch.equal(single.argsort(), pooled.argsort())
    torch.testing.assert_close(pooled, single, rtol=1e-5, atol=0)


@pytest.mark.parametrize("k", [1, 4])
def test_obs_with_a_pool_takes_one_of_each_pair_and_does_as_little_damage(monkeypatch, k):
    context = redundant_grams(64, k, pairs=True)
    single, pooled = (obs_scores(monkeypatch, context, 64, size) for size in (64, 16))
    first = pooled.argsort()[:32]
    assert len(set((first // 2).tolist())) == 32
    np.testing.assert_allclose(pooled.sort().values[:60], single.sort().values[:60], rtol=0.02)


@pytest.mark.parametrize("name", ["thinet", "lasso", "obs"])
@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_a_channel_that_nobody_uses_goes_first(name, reduce):
    model, graph = mixed()
    reader = model.join
    kept = reader.weight.detach().clone()
    try:
        with torch.no_grad():
            reader.weight[:, [4, 22]] = 0  # channel 4 of the grouped layer, where it is read once and again
        found = scorer(f"{name}(reduce={reduce})").scores(model, graph, data=pictures(8, 5))["split"]
        assert int(found.argmin()) == 4
    finally:
        with torch.no_grad():
            reader.weight.copy_(kept)
