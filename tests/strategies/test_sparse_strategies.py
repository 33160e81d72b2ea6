"""Strategies that make single weights zero, or learn noise: budgets, mechanisms, and their mathematics."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import nasprune
from nasprune.cut.weight_masks import count_nonzeros
from nasprune.registry import entries, load
from nasprune.strategies.partner import StrategyPartner
from tests.nets import EXAMPLE, TinyResNet

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(64) % 4
KINDS = {entry.name: load("strategies", entry.name) for entry in entries("strategies")}
SPARSE = [name for name, kind in KINDS.items() if "zeros" in kind.takes]
BOTH = [name for name in SPARSE if "structure" in KINDS[name].takes]


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))


def started(strategy: str, budget: str = "40%NNZ", steps: int = 12, lr: float = 0.1):
    model = small_net()
    sgd = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return model, sgd, nasprune.pruner(model, X[:1], budget, steps=steps, strategy=strategy, optimizer=sgd)


def run(model, sgd, pruner, steps: int = 12) -> None:
    for _ in range(steps):
        sgd.zero_grad()
        functional.cross_entropy(model(X), Y).backward()
        sgd.step()
        pruner.step()


def module_of(name: str):
    return sys.modules[KINDS[name].__module__]


def test_these_make_weights_zero() -> None:
    found = ["dns", "gradual", "iterative_magnitude", "l0", "lc", "olmp", "snip", "targeted_dropout", "vd"]
    assert found == SPARSE
    assert BOTH == ["l0", "targeted_dropout"]


@pytest.mark.parametrize("name", SPARSE)
def test_the_budget_is_kept_and_zeros_are_exact(name: str, tmp_path) -> None:
    model, sgd, pruner = started(name)
    run(model, sgd, pruner)
    found = pruner.finish()
    dense = sum(parameter.numel() for parameter in model.parameters())
    assert found.nonzeros == count_nonzeros(found.model) <= 0.4 * dense
    assert found.proof.ok
    assert found.change == 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in found.model.modules())
    for weight, mask in found.plan.masks.items():
        assert not found.model.get_parameter(weight)[~mask].any()


@pytest.mark.parametrize("name", [*BOTH, "sbp", "bayes", "bayes(prior='ghs')"])
def test_units_that_are_gated_shut_are_cut(name: str) -> None:
    model = TinyResNet(8, 2)
    sgd = torch.optim.SGD(model.parameters(), lr=0.02)
    pruner = nasprune.pruner(model, EXAMPLE, "60%", steps=6, strategy=name, optimizer=sgd)
    model.train()
    images = torch.randn(8, *EXAMPLE.shape[1:])
    for _ in range(6):
        sgd.zero_grad()
        functional.cross_entropy(model(images), torch.arange(8) % 4).backward()
        sgd.step()
        pruner.step()
    found = pruner.finish()
    assert found.change < 1e-4
    assert found.cut.flops <= 0.6 * found.dense.flops
    assert ("Bits that the noise" in " ".join(found.notes)) == name.startswith("bayes")


@pytest.mark.parametrize("name", ["dns", "l0", "olmp", "vd", "targeted_dropout"])
def test_a_strategy_goes_back_with_its_network(name: str) -> None:
    outcomes = []
    for detour in (False, True):
        model = small_net()
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        partner = StrategyPartner(
            lambda net, optimizer, steps: nasprune.pruner(net, X[:1], "40%NNZ", steps=steps, strategy=name, lr=0.1)
        )
        partner.begin(model, sgd, 12)
        run(model, sgd, partner, 4)
        partner.keep()
        kept = {key: value.clone() for key, value in model.state_dict().items()}
        if detour:
            run(model, sgd, partner, 3)
            model.load_state_dict(kept)
            partner.back()
        run(model, sgd, partner, 8)
        outcomes.append(partner.pruner.finish().model.state_dict())
    assert all(torch.equal(value, outcomes[1][key]) for key, value in outcomes[0].items())


def test_budgets_that_a_strategy_cannot_keep_are_refused() -> None:
    for strategy, budget, message in (
        ("dns", "50%", "keeps budgets of numbers that are not zero, such as 10%NNZ"),
        ("hard", "10%NNZ", "keeps budgets of what widths cost, such as 50%"),
        ("dns", "10%NNZ,50%", "either one such as 50% or one such as 10%NNZ"),
        ("dns", "5%NNZ", "fewer than biases and norms have"),
        ("dns(band=2)", "40%NNZ", "`band` must be in"),
        ("lc(mu=0)", "40%NNZ", "`mu` above 0"),
        ("vd(items=0)", "40%NNZ", "`items` must be at least 1"),
        ("l0(start=1)", "40%NNZ", "`start` must be in"),
        ("snip(batches=0)", "40%NNZ", "`batches` must be at least 1"),
        ("olmp(trials=1)", "40%NNZ", "`trials` at least 4"),
        ("bayes(prior=flat)", "60%", "`prior` must be one of gnj, ghs"),
        ("gradual(until=1)", "40%NNZ", "`until` must be in"),
        ("iterative_magnitude(rounds=0)", "40%NNZ", "`rounds` must be at least 1"),
        ("targeted_dropout(alpha=0)", "40%NNZ", "`alpha` must be in"),
    ):
        with pytest.raises(nasprune.NaspruneError, match=message):
            started(strategy, budget)


def zeros_by_step(strategy: str, budget: str = "40%NNZ", steps: int = 20) -> list[int]:
    model, _, pruner = started(strategy, budget, steps)
    found = []
    for _ in range(steps):
        pruner.step()
        found.append(sum(int((layer.weight == 0).sum()) for layer in (model[0], model[2])))
    return found


def test_the_gradual_schedule_is_cubic() -> None:
    zeros = zeros_by_step("gradual(until=0.5, times=10)")
    most = 384 - round(0.4 * 420 - 36)
    assert zeros == [round(most * (1 - (1 - min(1.0, step / 10)) ** 3)) for step in range(1, 21)]


def test_rounds_take_the_same_share_of_what_is_left() -> None:
    zeros = zeros_by_step("iterative_magnitude(rounds=3, until=0.5)")
    left = (0.4 * 420 - 36) / 384
    assert sorted(set(zeros)) == pytest.approx([384 * (1 - left ** (number / 3)) for number in (1, 2, 3)], abs=1)
    assert zeros == sorted(zeros)


def test_snip_scores_weights_by_their_gradient_at_the_start() -> None:
    model, sgd, pruner = started("snip")
    functional.cross_entropy(model(X), Y).backward()
    scores = torch.cat([(layer.weight * layer.weight.grad).abs().detach().flatten() for layer in (model[0], model[2])])
    sgd.step()
    pruner.step()
    stays = torch.cat([(layer.weight != 0).flatten() for layer in (model[0], model[2])])
    assert set(scores.topk(int(stays.sum())).indices.tolist()) == set(stays.nonzero().flatten().tolist())
    assert torch.equal(model[0].weight[model[0].weight != 0], small_net()[0].weight[model[0].weight != 0])


def test_surgery_keeps_between_its_thresholds_what_was_there() -> None:
    _, _, pruner = started("dns(band=0.2)")
    strategy = pruner.strategy
    name = "0.weight"
    strategy._look(1.0)
    least, place = strategy._least[name], (0, 0)
    for level, before, after in ((0.9, True, True), (0.9, False, False), (1.1, False, False), (1.3, False, True)):
        strategy._masks[name][place] = before
        strategy._whole[name][place] = level * least
        strategy._weighed = 1000  # layers are not weighed again
        strategy._left[name] = int((strategy._whole[name].abs() >= least).sum())
        strategy._look(1.0)
        assert bool(strategy._masks[name][place]) == after
    strategy._whole[name][place] = 0.7 * least
    strategy._look(1.0)
    assert not strategy._masks[name][place]


def test_surgery_splices_in_what_the_gradient_asks_for() -> None:
    model, sgd, pruner = started("dns(band=0.0, ramp=0.01, gamma=0)", steps=100)
    pruner.step()
    row, column = (model[0].weight == 0).nonzero()[0].tolist()
    for _ in range(30):
        sgd.zero_grad()
        model[0].weight.grad = torch.zeros_like(model[0].weight)
        model[0].weight.grad[row, column] = -1.0
        sgd.step()
        pruner.step()
    assert float(model[0].weight[row, column].detach()) > 0.5


def test_what_is_out_does_not_grow_far_beyond_the_threshold() -> None:
    model, sgd, pruner = started("dns(band=0.1, ramp=0.01, gamma=100, power=9)", steps=100)  # no further looks
    with torch.no_grad():
        pruner.strategy._look(1.0)
        pruner.strategy._put()
    row, column = (model[0].weight == 0).nonzero()[0].tolist()
    for _ in range(30):
        sgd.zero_grad()
        model[0].weight.grad = torch.zeros_like(model[0].weight)
        model[0].weight.grad[row, column] = -1.0
        sgd.step()
        pruner.step()
    most = 1.2 * pruner.strategy._least["0.weight"]
    assert float(pruner.strategy._whole["0.weight"][row, column]) == pytest.approx(most)
    assert not model[0].weight[row, column]


def test_training_that_strayed_is_told() -> None:
    model, _, pruner = started("gradual", steps=1)
    pruner.step()
    with torch.no_grad():
        model[2].weight[0, 0] = math.nan
    with pytest.raises(
        nasprune.InputError, match=r"the strategy `gradual` strayed: '2\.weight' is no longer finite; lower"
    ):
        pruner.finish()


def test_lamp_scores_are_shares_of_what_is_not_smaller() -> None:
    weight = torch.tensor([[3.0, -1.0], [2.0, 0.0]])
    assert torch.allclose(nasprune.lamp_scores(weight).float(), torch.tensor([[1.0, 1 / 14], [4 / 13, 0.0]]))
    assert torch.equal(nasprune.lamp_scores(torch.zeros(3)), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("name", ["dns", "gradual", "olmp", "targeted_dropout"])
def test_small_layers_with_small_weights_are_not_emptied(name) -> None:
    model, sgd, pruner = started(f"{name}", steps=20, lr=1e-4)
    with torch.no_grad():
        for whole in (getattr(pruner.strategy, "_whole", {}).get("2.weight"), model[2].weight):
            if whole is not None:
                whole.mul_(1e-3)
    run(model, sgd, pruner, 20)
    assert int(pruner.finish().model[2].weight.count_nonzero()) > 0


def test_learning_and_compressing_come_together() -> None:
    model, sgd, pruner = started("lc(times=20, mu=0.5, growth=1.4, until=0.9)", steps=200)
    apart = []
    for _ in range(179):
        run(model, sgd, pruner, 1)
        theta = pruner.strategy._theta["0.weight"]
        apart.append(float((model[0].weight.detach() - theta).norm() / theta.norm()))
    assert apart[-1] < 0.02 < apart[0]


def test_the_weakest_weights_are_dropped_by_chance() -> None:
    model, _, pruner = started("targeted_dropout(alpha=0.25)", steps=100)
    pruner.strategy._look(1.0)
    kept = pruner.strategy._masks["0.weight"]
    given = torch.eye(8)
    seen = torch.stack([(model[0](given) - model[0].bias).T != 0 for _ in range(400)]).float().mean(0)
    assert bool((seen[kept] == 1).all())
    assert seen[~kept].mean() == pytest.approx(0.75, abs=0.02)
    model.eval()
    assert bool(((model[0](given) - model[0].bias).T != 0).all())


def test_thresholds_are_searched_for_the_least_harm() -> None:
    model, sgd, pruner = started("olmp(rounds=1, until=0.5, trials=120)", "60%NNZ", steps=4, lr=0.0)
    with torch.no_grad():
        model[0].weight[:16] *= 1e-3  # halves of no use, which thresholds by deviation alone keep too much of
        model[2].weight[:, 16:] *= 0.2
    pruner.strategy._whole = {weight.name: weight.tensor.detach().clone() for weight in pruner.task.weights}
    wanted = model(X).detach()
    alike = pruner.task.masks(pruner.strategy._scores(torch.zeros(2)))
    run(model, sgd, pruner, 2)
    searched = float((model(X).detach() - wanted).square().mean())
    for weight in pruner.task.weights:
        weight.tensor.data.copy_(pruner.strategy._whole[weight.name] * alike[weight.name])
    assert searched < 0.7 * float((model(X).detach() - wanted).square().mean())


def test_between_rounds_what_grows_above_its_threshold_is_in() -> None:
    model, sgd, pruner = started("olmp(rounds=2, until=0.5)", steps=100)
    run(model, sgd, pruner, 26)
    least, mask = pruner.strategy._least["0.weight"], pruner.strategy._masks["0.weight"]
    assert 0 < least < math.inf
    assert bool((pruner.strategy._whole["0.weight"].abs() >= least)[mask].all())
    row, column = (~mask).nonzero()[0].tolist()
    with torch.no_grad():
        pruner.strategy._whole["0.weight"][row, column] = 2 * least
    pruner.step()
    assert float(model[0].weight[row, column].detach()) == pytest.approx(2 * least)


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


class Attending(nn.Module):
    """Attention, two layers of one weight, and a layer whose weight code multiplies with."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.first, self.second, self.called, self.head = (nn.Linear(8, 8) for _ in range(4))
        self.second.weight = self.first.weight

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.second(self.first(x).relu())
        return self.head(functional.linear(x, self.called.weight).relu().mean(1))


def test_weights_that_are_read_past_their_layer_stay_whole() -> None:
    torch.manual_seed(0)
    model, tokens = Attending(), torch.randn(8, 3, 8)
    pruner = nasprune.pruner(model, tokens[:1], "90%NNZ", steps=8, strategy="l0", lr=0.1)
    assert [weight.name for weight in pruner.task.weights] == ["first.weight", "head.weight"]
    for _ in range(8):
        functional.cross_entropy(model(tokens), torch.arange(8)).backward()
        pruner.step()
    found = pruner.finish()
    assert set(found.plan.masks) <= {"first.weight", "head.weight"}
    assert torch.equal(found.model.attention.out_proj.weight, model.attention.out_proj.weight)
    (note,) = found.notes
    assert "attention.out_proj.weight, called.weight" in note
    pruner.task.weights[0].through(lambda weight, training: weight * 0)
    assert torch.equal(model.second(tokens), model.second.bias.expand_as(tokens))
    pruner.task.release()
    with pytest.raises(nasprune.BudgetError, match=r"biases and norms, and the weights attention\.out_proj\.weight"):
        nasprune.pruner(model, tokens[:1], "70%NNZ", steps=8, strategy="l0")
    free = nasprune.pruner(model, tokens[:1], "70%NNZ", steps=8, strategy="gradual").task
    assert {"attention.out_proj.weight", "called.weight"} <= {weight.name for weight in free.weights}
    called = next(weight for weight in free.weights if weight.name == "called.weight")
    with pytest.raises(nasprune.PluginError, match=r"'called\.weight', but code reads .* `hooks = True`"):
        called.through(lambda weight, training: weight)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8) / 3)

    def forward(self, x):
        return functional.linear(x, self.weight)


class Read(nn.Module):
    """Groups of eight channels, each read by something else."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.own, self.bare = nn.LSTM(8, 8, batch_first=True), Own(), nn.Parameter(torch.randn(8, 8))
        self.a, self.b, self.c, self.d, self.e, self.f = (nn.Linear(8, 8) for _ in range(6))

    def forward(self, x):
        x = self.own(self.lstm(self.a(x))[0].relu())
        x = functional.linear(self.b(x).relu() @ self.bare, self.c.weight, self.c.bias)
        x = x * self.d(x).relu().sum(2, keepdim=True)
        return self.f(self.e(x).relu()).mean(1)


@pytest.mark.parametrize("name", [*BOTH, "sbp", "bayes"])
def test_gates_stand_where_layers_alone_read(name: str) -> None:
    torch.manual_seed(0)
    model, tokens = Read(), torch.randn(8, 8, 8)
    pruner = nasprune.pruner(model, tokens[:1], "95%", steps=4, strategy=name, lr=0.1)
    assert [group.name for group in pruner.task.groups] == ["own", "c", "e"]
    for _ in range(4):
        functional.cross_entropy(model(tokens), torch.arange(8)).backward()
        pruner.step()
    found = pruner.finish()
    assert found.plan.keep.keys() <= {"own", "c", "e"}
    said = " ".join(found.notes)
    for group, reader in (("a", "lstm.weight_ih_l0"), ("b", "bare"), ("bare", "c.weight"), ("d", "`sum` at")):
        assert f"Group {group} stayed whole: {reader}" in said
    whole = nasprune.pruner(model, tokens[:1], "95%", steps=4, strategy="soft").task
    with pytest.raises(nasprune.PluginError, match=r"gate on group 'a', but lstm\.weight_ih_l0 .* `hooks = True`"):
        whole.gate(whole.graph.group("a"), lambda items, training: torch.ones(1, 8))


class Named(nn.Module):
    """Layers that are called by name, and one with a further argument."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up = nn.Conv2d(1, 8, 3, 2, 1), nn.ConvTranspose2d(8, 8, 3, 2, 1)
        self.last, self.norm, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, image):
        x = self.up(self.first(input=image).relu(), output_size=image.shape[2:])
        return self.head(input=self.norm(input=self.last(input=x.relu())).mean((2, 3)))


@pytest.mark.parametrize(
    ("name", "budget"),
    [*((name, "60%") for name in ("sbp", "bayes", "resrep")), *((name, "60%NNZ") for name in ("l0", "vd", "olmp"))],
)
def test_layers_that_are_called_by_name(name: str, budget: str) -> None:
    torch.manual_seed(0)
    model, images = Named(), torch.randn(8, 1, 6, 6)
    pruner = nasprune.pruner(model, images[:1], budget, steps=4, strategy=name, lr=0.05)
    for _ in range(4):
        functional.cross_entropy(model(image=images), torch.arange(8) % 4).backward()
        pruner.step()
    assert pruner.finish().proof.ok
    assert list(dict(model.up.named_parameters())) == ["weight", "bias"]


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
