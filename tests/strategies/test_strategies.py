"""Every strategy gives a network within the budget whose cut changes nothing, in a loop of the user's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

import nasprune
from nasprune.cost.flops import measure
from nasprune.errors import InputError, PlanError, PluginError
from nasprune.registry import load
from nasprune.run import search as story
from nasprune.run.checkpoint import save
from nasprune.run.trace import trace
from nasprune.strategies.slots import slots_of
from nasprune.testing import SampleNet, check_strategy
from tests.nets import EXAMPLE, TinyResNet
from tests.strategies.training import EVERY, NAMES, X, Y, trained


@pytest.mark.parametrize("name", [*NAMES, "hard(rounds=3)", "soft(asymptotic=True)", "csgd(pull=1.0)"])
def test_the_cut_is_within_the_budget_and_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    model = TinyResNet(8, 2)
    dense = measure(model, EXAMPLE)
    found = trained(name, model)
    small = measure(found.model, EXAMPLE)
    assert small == found.cut
    assert 0.3 * dense.flops < small.flops <= 0.5 * dense.flops
    assert found.proof.ok
    assert found.change < 1e-4
    replayed = nasprune.build(TinyResNet(8, 2, seed=5), found.graph, found.plan)
    assert {n: v.shape for n, v in replayed.state_dict().items()} == {
        n: v.shape for n, v in found.model.state_dict().items()
    }
    assert not found.model.training


@pytest.mark.parametrize("name", EVERY)
def test_every_strategy_keeps_the_contract(name: str) -> None:
    check_strategy(load("strategies", name))


class Careless(nasprune.Strategy):
    """Cuts what is not empty."""

    def __init__(self, task) -> None:
        self.task = task

    def step(self, progress: float, rate: float) -> None: ...

    def finish(self):
        return self.task.plan(self.task.magnitudes())


class Drawing(Careless):
    def step(self, progress: float, rate: float) -> None:
        torch.rand(1)


def test_a_broken_contract_is_named() -> None:
    with pytest.raises(PluginError, match=r"strategy `Careless` changes outputs by .* empty or merge what goes before"):
        check_strategy(Careless)
    with pytest.raises(PluginError, match="strategy `Drawing` draws from a global generator"):
        check_strategy(Drawing)


def test_the_names_are_those_that_the_docs_list() -> None:
    structured = [
        "bayes",
        "csgd",
        "fpgm_soft",
        "gal",
        "greg",
        "hard",
        "l0",
        "morphnet",
        "resrep",
        "sbp",
        "scratch",
        "slimming",
    ]
    assert [*structured, "soft", "targeted_dropout"] == NAMES


def doomed(model: nn.Module, plan) -> list[int]:
    return sorted(set(range(8)) - set(plan.keep["blocks.0.conv1"]))


def test_slimming_draws_scales_to_zero() -> None:
    torch.manual_seed(0)
    model = TinyResNet(8, 2)
    before = model.blocks[0].bn1.weight.abs().sum()
    trained("slimming(strength=0.5, until=1.0)", model)
    assert model.blocks[0].bn1.weight.abs().sum() < 0.8 * before


def test_soft_lets_filters_come_back() -> None:
    torch.manual_seed(0)
    model = TinyResNet(8, 2)
    found = trained("soft(times=2)", model)
    assert found.change < 1e-4
    model = TinyResNet(8, 2)
    pruner = nasprune.pruner(model, EXAMPLE, "50%", steps=4, strategy="soft(times=2)")
    zeros = []
    for _ in range(4):
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.01)
        pruner.step()
        zeros.append(int((model.blocks[0].conv1.weight.flatten(1).abs().sum(1) == 0).sum()))
    assert zeros[0] == zeros[2] == 0
    assert zeros[1] == zeros[3] > 0


def test_soft_lets_the_share_grow_where_it_is_asymptotic() -> None:
    model = TinyResNet(8, 2)
    pruner = nasprune.pruner(model, EXAMPLE, "30%", steps=20, strategy="soft(asymptotic=True)")
    gone = []
    for _ in range(20):
        with torch.no_grad():
            model.blocks[0].conv1.weight.add_(1e-4)
        pruner.step()
        gone.append(int((model.blocks[0].conv1.weight.flatten(1).abs().sum(1) == 0).sum()))
    assert gone == sorted(gone)
    assert 0 < gone[0] < gone[2] <= gone[-1]


def test_fpgm_takes_filters_that_others_stand_in_for_and_lets_them_come_back() -> None:
    model = TinyResNet(8, 2)
    conv = model.blocks[0].conv1
    with torch.no_grad():
        conv.weight.mul_(0.1)
        conv.weight[:4] = 1.0  # the largest, and one of them says what all say
        conv.weight[:4] += 1e-3 * torch.arange(4)[:, None, None, None]
    pruner = nasprune.pruner(model, EXAMPLE, "50%", steps=4, strategy="fpgm_soft(times=2)")
    zeros = []
    for _ in range(4):
        with torch.no_grad():
            conv.weight.add_(1e-4)
        pruner.step()
        zeros.append((conv.weight.flatten(1).abs().sum(1) == 0).nonzero().flatten().tolist())
    assert zeros[0] == zeros[2] == []
    assert zeros[1]
    assert set(zeros[1]) <= {0, 1, 2, 3}
    assert set(doomed(model, pruner.finish().plan)) == set(zeros[3])


def test_morphnet_draws_scales_to_zero_by_what_their_channels_cost() -> None:
    model = TinyResNet(8, 2)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    pruner = nasprune.pruner(model, EXAMPLE, "50%", steps=10, strategy="morphnet(strength=1.0)", lr=0.05)
    pruner.step()
    whole = {group.name: group.width for group in pruner.task.groups}
    prices = pruner.task.prices(whole)
    graph, name = pruner.task.graph, "blocks.0.conv1"
    assert prices[name] == nasprune.predict(graph, {}).flops - nasprune.predict(graph, {name: 7}).flops
    assert prices["conv"] > prices[name]  # read and made by every block
    drawn = {
        norm: float((before[f"{norm}.weight"] - model.get_parameter(f"{norm}.weight").detach()).mean())
        for norm in ("bn", "blocks.0.bn1")
    }
    assert drawn["bn"] / drawn["blocks.0.bn1"] == pytest.approx(prices["conv"] / prices[name], rel=1e-3)
    assert pruner.task.prices({**whole, name: 4})["conv"] < prices["conv"]
    with torch.no_grad():
        model.blocks[0].bn1.weight[:5] = 0.004
    for _ in range(9):
        pruner.step()
    assert set(range(5)) <= set(doomed(model, pruner.finish().plan))


def test_resrep_rows_go_to_zero_and_merge_without_loss() -> None:
    torch.manual_seed(0)
    model = TinyResNet(8, 2).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    pruner = nasprune.pruner(model, EXAMPLE, "60%", steps=40, strategy="resrep(strength=5.0)", optimizer=optimizer)
    compactors = pruner.strategy._compactors
    assert set(compactors) == {"blocks.0.conv1", "blocks.1.conv1"}  # the others have several makers
    rows = []
    for step in range(40):
        part = slice(16 * (step % 3), 16 * (step % 3) + 16)
        optimizer.zero_grad()
        functional.cross_entropy(model(X[part]), Y[part]).backward()
        optimizer.step()
        pruner.step()
        rows.append(torch.cat([matrix.detach().norm(dim=1) for matrix in compactors.values()]))
    assert ((rows[20] > 0) & (rows[20] < 0.9)).any()  # on the way, by the penalty
    model.eval()
    with torch.no_grad():
        trained = model(X)
        found = pruner.finish()
        assert torch.allclose(model(X), trained, atol=1e-5)  # compactors are merged
        assert float((found.model(X) - trained).abs().max() / trained.abs().max()) < 1e-4
    assert not any(module._forward_hooks for module in found.model.modules())
    gone = [name for name in compactors for _ in doomed_of(found.plan, name)]
    assert len(gone) == int((rows[-1] == 0).sum()) > 0
    assert set(found.plan.keep) <= set(compactors)


def doomed_of(plan, name: str) -> list[int]:
    return sorted(set(range(8)) - set(plan.keep.get(name, range(8))))


@pytest.mark.parametrize("inplace", [False, True])
def test_resrep_keeps_away_where_the_norm_reads_something_else(inplace: bool) -> None:
    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)
            self.relu = nn.ReLU(inplace)

        def forward(self, x):
            return self.head(self.norm(self.relu(self.conv(x))).mean((2, 3)))

    torch.manual_seed(0)
    model = Between()
    found = trained("resrep", model)
    assert found.model.norm.running_mean.any()  # nothing was merged
    assert found.change < 1e-4
    assert found.cut.flops <= 0.5 * found.dense.flops


def test_hard_keeps_what_is_gone_at_zero_and_takes_rounds() -> None:
    model = TinyResNet(8, 2)
    pruner = nasprune.pruner(model, EXAMPLE, "30%", steps=8, strategy="hard(rounds=2)")
    gone = []
    for _ in range(8):
        pruner.step()
        gone.append(int((model.blocks[0].conv1.weight.flatten(1).abs().sum(1) == 0).sum()))
    assert gone == sorted(gone)
    assert 0 < gone[0] < gone[-1]
    assert pruner.steps == 8
    with pytest.raises(InputError, match="the pruner was made for 8 steps, and this is one more"):
        pruner.step()


def test_what_has_not_settled_is_told() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    x = torch.randn(64, 8)
    pruner = nasprune.pruner(model, x[:1], "50%", steps=2, strategy="csgd", lr=0.1)
    pruner.step()
    before = model(x).detach()
    found = pruner.finish()
    apart = float((found.model(x) - before).detach().abs().max() / before.abs().max())
    assert found.settling > 0.05 < apart
    assert found.change < 1e-5
    assert any("`csgd`, which makes the network ready for the cut, changed outputs by" in note for note in found.notes)


def test_csgd_merges_filters_that_moved_together() -> None:
    torch.manual_seed(0)
    model = TinyResNet(8, 2)
    found = trained("csgd(pull=0.8)", model)
    filters = model.blocks[0].conv1.weight.detach().flatten(1)
    kept = len(found.plan.keep["blocks.0.conv1"])
    assert len(torch.unique((filters * 1e3).round(), dim=0)) == kept < 8


def test_scratch_forgets_and_finish_leaves_the_network() -> None:
    model = TinyResNet(8, 2)
    before = model.conv.weight.detach().clone()
    pruner = nasprune.pruner(model, EXAMPLE, "50%", steps=1, strategy="scratch", seed=3)
    assert not torch.equal(model.conv.weight, before)
    pruner.step()
    values = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    pruner.finish()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


def test_slots_are_read_and_written_in_place() -> None:
    model = SampleNet()
    graph = trace(model.eval(), torch.randn(1, 3, 8, 8))
    group = max(graph.free_groups, key=lambda one: len(one.slices))
    for slots in slots_of(model, graph, group):
        rows = slots.read()
        assert rows.shape[0] == group.width
        before = slots.tensor.detach().clone()
        slots.write(rows)
        assert torch.equal(slots.tensor, before)
        slots.write(torch.zeros_like(rows))
        assert not slots.read().any()
    assert {slots.role for slots in slots_of(model, graph, group)} == {"out", "in", "scale"}


class Wrong(nasprune.Strategy):
    def __init__(self, task) -> None:
        task.plan({})

    def step(self, progress: float, rate: float) -> None: ...

    def finish(self): ...


def test_what_is_wrong_is_said() -> None:
    for options, message in (
        ({"steps": 0}, "`steps` must be at least 1"),
        ({"strategy": "hard(rounds=0)"}, "`rounds` must be at least 1"),
        ({"strategy": "soft(times=0)"}, "`times` must be at least 1"),
        ({"strategy": "fpgm_soft(times=0)"}, "`times` must be at least 1"),
        ({"strategy": "morphnet(until=0)"}, "`until` in"),
        ({"strategy": "resrep(until=1)"}, "`until` in"),
        ({"strategy": "gentle"}, "unknown strategy 'gentle'"),
        ({"budget": "1FLOPs"}, "cannot be met|least"),
    ):
        with pytest.raises(nasprune.NaspruneError, match=message):
            nasprune.pruner(TinyResNet(8, 2), EXAMPLE, **{"budget": "50%", "steps": 4, **options})
    with pytest.raises(PluginError, match="a strategy gave no scores of shape"):
        nasprune.pruner(TinyResNet(8, 2), EXAMPLE, "50%", steps=4, strategy=f"{__name__}:Wrong")
    assert load("strategies", "hard").__name__ == "Hard"


def test_two_searches_are_one_plan_on_the_original(tmp_path) -> None:
    model = TinyResNet(16, 3)
    options = {"allow_chance": True, "trials": 10, "space_options": {"divisor": 2}}
    first = story.search(model, EXAMPLE, "70%", **options)
    second = story.search(first.model, EXAMPLE, "60%", **options)
    plan = nasprune.compose(model, first, second)
    save(replace(second, plan=plan), tmp_path)
    loaded = nasprune.load(tmp_path, model=TinyResNet(16, 3, seed=4))
    with torch.no_grad():
        assert torch.equal(loaded(X), second.model(X))
    with pytest.raises(PlanError):
        nasprune.compose(model, second, first)


@pytest.mark.parametrize("blocks", [0, 3])
def test_gal_takes_channels_and_blocks_and_learns_to_judge(blocks: int) -> None:
    torch.manual_seed(0)
    model = TinyResNet(8, 3).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    spec = f"gal(strength=0.1, blocks={blocks}, near=0.5, until=0.8)"
    pruner = nasprune.pruner(model, EXAMPLE, "65%", steps=50, strategy=spec, optimizer=optimizer)
    strategy = pruner.strategy
    for step in range(50):
        part = slice(16 * (step % 3), 16 * (step % 3) + 16)
        optimizer.zero_grad()
        functional.cross_entropy(model(X[part]), Y[part]).backward()
        optimizer.step()
        pruner.step()
        if step == 0:
            judge = [value.detach().clone() for value in strategy._judge]
    assert not all(torch.equal(*pair) for pair in zip(judge, strategy._judge, strict=True))
    model.eval()
    with torch.no_grad():
        trained = model(X)
        found = pruner.finish()
        assert torch.allclose(model(X), trained, atol=1e-5)
        assert float((found.model(X) - trained).abs().max() / trained.abs().max()) < 1e-4
    assert bool(found.plan.drop) == bool(blocks)
    assert found.plan.keep
    assert found.cut.flops <= 0.65 * found.dense.flops
    assert not any(module._forward_hooks for module in found.model.modules())


def test_fista_goes_ahead_and_stops_at_zero() -> None:
    fista = load("strategies", "gal").__init__.__globals__["Fista"]
    ahead, plain = fista(2, torch.device("cpu")), 1.0
    for _ in range(5):
        ahead.point.grad = torch.tensor([0.0, -10.0])
        ahead.step(0.1, 0.5)
        plain -= 0.05
    assert ahead.value[0] < plain - 0.05  # accelerated
    assert ahead.value[1] > 1.0
    for _ in range(20):
        ahead.step(0.1, 0.5)
    assert ahead.value[0] == ahead.point[0] == 0.0
