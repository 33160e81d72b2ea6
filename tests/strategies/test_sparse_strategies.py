"""Strategies that make single weights zero: budgets and mechanisms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

import nasprune
from nasprune.cut.weight_masks import count_nonzeros
from nasprune.strategies.partner import StrategyPartner
from tests.nets import EXAMPLE, TinyResNet
from tests.strategies.loops import BOTH, SPARSE, X, Y, run, small_net, started


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
