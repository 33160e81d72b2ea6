"""Networks in which a strategy finds less than it learns from, and what it leaves behind there."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, weight_norm

import nasprune
from nasprune.errors import InputError
from tests.nets import EXAMPLE, TinyResNet
from tests.strategies.training import NAMES, X, Y, trained


class HalfNormed(nn.Module):
    """Of three groups one has a batch norm right behind its layer."""

    def __init__(self, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 32, 3)
        self.norm, self.head = norm(32), nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.norm(self.third(self.second(self.first(x).relu()).relu())).relu().mean((2, 3)))


@pytest.mark.parametrize("name", ["slimming", "morphnet", "resrep"])
def test_groups_without_what_is_learned_go_last_and_no_further_than_the_budget(name: str) -> None:
    torch.manual_seed(0)
    found = trained(name, HalfNormed(), budget="70%")
    assert 0.6 * found.dense.flops < found.cut.flops <= 0.7 * found.dense.flops
    assert len(found.plan.keep["third"]) < 8
    kept = [len(found.plan.keep.get(name, range(32))) for name in ("first", "second")]
    assert max(kept) - min(kept) <= 1
    (note,) = found.notes
    assert note.endswith("where the budget asked for more: first, second.")
    with pytest.raises(InputError, match=r"learns from .*batch norm.* none of the 3 groups .*'first'\); take a strat"):
        nasprune.pruner(HalfNormed(nn.Identity), EXAMPLE, "70%", steps=4, strategy=name)


def test_equal_scores_are_cut_just_below_the_budget() -> None:
    task = nasprune.pruner(HalfNormed(nn.Identity), EXAMPLE, "70%", steps=4).task
    plan = task.plan({group.name: torch.ones(32) for group in task.groups}, spread="global")
    assert 0.65 * task.problem.dense.flops < nasprune.predict(task.graph, plan.counts).flops
    least = task.plan({group.name: torch.ones(32) for group in task.groups}, spread="global", least=1.0)
    assert {len(kept) for kept in least.keep.values()} == {min(task.problem.space.widths[0].options)}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("normed", [parametrizations.weight_norm, weight_norm])
def test_layers_that_compute_their_weights_are_refused(normed) -> None:
    model = HalfNormed(nn.Identity)
    normed(model.second)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for name in ("hard", "scratch"):
        with pytest.raises(InputError, match=r"'second' computes its own .* exclude=\['first', 'second'\]"):
            nasprune.pruner(model, EXAMPLE, "70%", steps=4, strategy=name)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    spared = nasprune.pruner(model, EXAMPLE, "90%", steps=4, exclude=["first", "second"])
    assert [group.name for group in spared.task.groups] == ["third"]


@pytest.mark.parametrize("name", ["gal", "resrep", "l0", "sbp", "olmp", "vd", "soft"])
@pytest.mark.parametrize("steps", [2, 6])
def test_finish_leaves_no_hook_but_those_of_others(name: str, steps: int) -> None:
    torch.manual_seed(0)
    model, seen = TinyResNet(8, 2).train(), []
    model.conv.register_forward_hook(lambda *given: seen.append(1))
    budget = "60%" if name in NAMES else "60%NNZ"
    pruner = nasprune.pruner(model, EXAMPLE, budget, steps=6, strategy=name, lr=0.01)
    model.bn.register_forward_hook(lambda *given: seen.append(2))
    for _ in range(steps):
        functional.cross_entropy(model(X[:8]), Y[:8]).backward()
        pruner.step()
    seen.clear()
    found = pruner.finish()
    plain = TinyResNet(8, 2)
    plain.load_state_dict(model.state_dict())
    seen.clear()
    with torch.no_grad():
        left = model.eval()(X[:8])
        assert torch.equal(left, plain.eval()(X[:8]))
        if name in ("resrep", "gal"):
            assert torch.allclose(left, found.model(X[:8]), atol=1e-5)
    assert seen == [1, 2]
    assert sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()) == 2


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.Identity])
def test_a_cut_that_changes_outputs_is_told(norm: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), norm(16), nn.ReLU(), nn.Linear(16, 4))
    pruner = nasprune.pruner(model, torch.randn(1, 8), "50%", steps=1, strategy="hard")
    pruner.step()
    found = pruner.finish()
    assert (found.change > 1e-3) == bool(found.notes) == (norm is nn.LayerNorm)
    if found.notes:
        assert (
            "of the largest, since norms take means over channels that the cut takes away (1); fine-tune"
            in found.notes[0]
        )
