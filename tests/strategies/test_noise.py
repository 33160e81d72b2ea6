"""Strategies that learn noise: what the noise is, and the mathematics of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import nasprune
from tests.strategies.loops import X, module_of, small_net, started


def test_the_noise_of_weights_is_relative_to_those_of_their_layer() -> None:
    model = small_net()
    with torch.no_grad():
        model[2].weight.mul_(100)
    pruner = nasprune.pruner(model, X[:1], "60%", steps=4, strategy="bayes", lr=0.1)
    for name, layer in (("0.weight", model[0]), ("2.weight", model[2])):
        variance = pruner.strategy._variance(name)().detach()
        assert torch.allclose(variance, math.exp(-8) * layer.weight.detach().square().mean().expand_as(variance))
        pruner.strategy._scale = 1.0
        weight = next(one for one in pruner.task.weights if one.name == name)
        pull = pruner.strategy._pull(weight)() / layer.weight.detach()
        assert torch.allclose(pull, (1 / (5000 * layer.weight.detach().square().mean())).expand_as(pull))


def test_hard_concrete_gates_are_zero_as_often_as_said() -> None:
    code = module_of("l0")
    log_a = torch.tensor([-3.0, -0.5, 0.0, 2.0])
    uniform = torch.rand(200_000, 4, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    gates = code.drawn(log_a, uniform)
    assert (gates > 0).float().mean(0).tolist() == pytest.approx(code.alive(log_a).tolist(), abs=0.005)
    ones = torch.sigmoid(log_a - code.BETA * math.log((1 - code.LOW) / (code.HIGH - 1)))
    assert (gates == 1).float().mean(0).tolist() == pytest.approx(ones.tolist(), abs=0.005)
    assert code.settled(torch.tensor([-5.0, 5.0])).tolist() == [0, 1]


def test_the_divergence_of_variational_dropout_by_quadrature() -> None:
    width = 24 / 2_000_000
    standard = -12 + width * (np.arange(2_000_000) + 0.5)
    density = np.exp(-(standard**2) / 2) / math.sqrt(2 * math.pi)
    for log_alpha in (-8.0, -4.0, -1.0, 0.0, 1.0, 3.0, 6.0):
        root = math.exp(log_alpha / 2)
        mean_log = width * float((density * np.log(np.abs(1 + root * standard))).sum())
        exact = mean_log - log_alpha / 2 + (np.euler_gamma + math.log(2)) / 2
        assert float(nasprune.log_uniform_kl(torch.tensor(log_alpha))) == pytest.approx(exact, abs=0.02)
    at = torch.linspace(-8, 6, 29, requires_grad=True)
    nasprune.log_uniform_kl(at).sum().backward()
    assert torch.allclose(nasprune.log_uniform_slope(at.detach()), at.grad, atol=1e-6)


def test_log_normal_noise_by_quadrature_and_by_drawing() -> None:
    code = module_of("sbp")
    mu, log_sigma = torch.tensor([0.0, -1.0, -5.0, -2.0]), torch.tensor([-3.0, 0.0, 1.0, -1.0])
    grid = torch.linspace(code.LOW, code.HIGH, 400_001, dtype=torch.float64)[:, None]
    density = (-((grid - mu) / log_sigma.exp()).square() / 2).exp()
    density /= torch.trapezoid(density, grid, dim=0)
    logs = torch.where(density > 0, density.log(), torch.zeros_like(density))
    prior = -math.log(code.HIGH - code.LOW)
    exact = torch.trapezoid(density * (logs - prior), grid, dim=0)
    assert code.divergence(mu, log_sigma).tolist() == pytest.approx(exact.tolist(), abs=1e-3)
    mean = torch.trapezoid(density * grid.exp(), grid, dim=0)
    spread = (torch.trapezoid(density * (2 * grid).exp(), grid, dim=0) - mean.square()).sqrt()
    found = code.moments(mu, log_sigma)
    assert found[0].tolist() == pytest.approx(mean.tolist(), rel=1e-3)
    assert found[1].tolist() == pytest.approx((mean / spread).tolist(), rel=1e-2)
    draws = code.drawn(mu, log_sigma, torch.rand(200_000, 4, generator=torch.Generator().manual_seed(0)))
    assert draws.mean(0).tolist() == pytest.approx(mean.tolist(), rel=0.03)


def test_horseshoe_factors_by_quadrature_and_by_drawing() -> None:
    code = module_of("bayes")
    mu, log_variance = torch.tensor([[0.5], [-0.7]]), torch.tensor([[-1.0], [0.3]])
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    scale = 0.4
    for row, prior in enumerate(  # densities of the factors themselves; grid is their logarithm
        (
            -0.5 * grid - grid.exp() / scale**2 - math.log(math.sqrt(math.pi) * scale),
            -1.5 * grid - (-grid).exp() - math.log(math.sqrt(math.pi)),
        )
    ):
        spread = math.exp(float(log_variance[row]) / 2)
        log_q = -((grid - float(mu[row])) / spread).square() / 2 - math.log(spread * math.sqrt(2 * math.pi))
        exact = float(torch.trapezoid(log_q.exp() * (log_q - (prior + grid)), grid))
        assert float(code.log_normal_kl(mu, log_variance, scale)[row]) == pytest.approx(exact, rel=1e-4)
    factors = code.Horseshoe(3)
    with torch.no_grad():
        for value in factors.parameters():
            value.uniform_(-1, 0.2)
    draws = factors.drawn(torch.randn(200_000, 4, generator=torch.Generator().manual_seed(0))).detach()
    assert draws.mean(0).tolist() == pytest.approx(factors.mean().tolist(), rel=0.02)


def test_bits_bring_the_rounding_below_the_noise() -> None:
    bits = module_of("bayes").bits
    assert bits(torch.tensor([1.0, -0.2]), torch.full((2,), 2.0**-12)) == 7
    assert bits(torch.tensor([1.0]), torch.tensor([4.0])) == 1


def test_noise_of_outputs_is_that_of_the_weights() -> None:
    model, _, pruner = started("hard", "60%")
    (first, _) = pruner.task.weights
    variance = torch.linspace(0.1, 2.0, 256).view(32, 8)
    generator = torch.Generator().manual_seed(0)
    first.noisy(lambda: variance, lambda shape: torch.randn(shape, generator=generator))
    x = X[:1].expand(20_000, -1)
    clean = functional.linear(X[:1], model[0].weight, model[0].bias)
    with torch.no_grad():
        spread = (model[0](x) - clean).square().mean(0)
    assert spread.tolist() == pytest.approx(functional.linear(X[0].square(), variance).tolist(), rel=0.06)
    model.eval()
    assert torch.equal(model[0](X[:1]), clean)
    pruner.task.release()
    assert not model[0]._forward_hooks


def test_noise_goes_by_what_a_gate_lets_through() -> None:
    model, _, pruner = started("hard", "60%")
    (group,), (_, second) = pruner.task.groups, pruner.task.weights
    pruner.task.gate(group, lambda items, training: torch.full((1, group.width), 2.0))
    second.noisy(lambda: torch.ones(4, 32), lambda shape: torch.ones(shape))
    x = torch.rand(3, 32)
    wanted = model[2].bias + 2 * x @ model[2].weight.T + (2 * x).square().sum(1, keepdim=True).sqrt()
    model.train()
    model(X)
    assert torch.allclose(model[2](x), wanted, rtol=1e-4)
