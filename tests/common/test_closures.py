"""Functions that close over a model: the copy's are bound to the copy, and the user's model does not run."""

import weakref
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import nasprune
from nasprune.common.untouched import twin

IMAGE = torch.randn(1, 3, 8, 8)


class Closing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.f = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Linear(16, 3)
        self.features: dict[str, Tensor] = {}
        self.act = lambda x: self.n(x).relu()
        self.steps = [partial(lambda scale, x: scale * self.act(x), 2.0)]
        self.a.register_forward_hook(lambda module, args, out: self.features.__setitem__("a", out))

    def forward(self, x: Tensor) -> Tensor:
        self.a(x)
        return self.f(self.steps[0](self.features["a"]).mean((2, 3)))


def test_a_copy_runs_its_own_modules():
    net = Closing().train()
    copied = twin(net)
    copied.n.weight.data.fill_(0)
    before = net.n.running_mean.clone()
    assert copied(IMAGE)[0].tolist() == pytest.approx(copied.f.bias.tolist())
    assert torch.equal(net.n.running_mean, before)
    assert net.features == {}
    assert "a" in copied.features


def test_weak_references_of_a_copy_point_to_the_copy():
    net, outside = Closing(), nn.Linear(2, 2)
    net.to_itself, net.others = weakref.ref(net.n), {"net": weakref.ref(net), "outside": weakref.ref(outside)}
    copied = twin(net)
    assert copied.to_itself() is copied.n
    assert copied.others["net"]() is copied
    assert copied.others["outside"]() is outside
    assert net.to_itself() is net.n


def test_a_search_leaves_the_model_as_it_is():
    net = Closing()
    result = nasprune.search(net, IMAGE, "60%", trials=2)
    assert result.report.proof.ok
    assert int(net.n.num_batches_tracked) == 0
    assert net.features == {}
    loaded = twin(result.model)
    assert torch.equal(loaded.eval()(IMAGE), result.model.eval()(IMAGE))


def test_what_a_hook_writes_to_is_copied_for_it():
    seen: dict[str, Tensor] = {}
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 3))
    net[0].register_forward_hook(lambda module, args, out: seen.update(out=out))
    nasprune.trace(net, IMAGE)
    assert seen == {}
    net(IMAGE)
    assert "out" in seen


def test_functions_that_call_themselves_and_empty_cells():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Linear(4, 4)

            def again(x: Tensor, times: int) -> Tensor:
                return x if not times else again(self.f(x), times - 1)

            self.again = again
            if False:
                later = 1
            self.never = lambda: later

        def forward(self, x: Tensor) -> Tensor:
            return self.again(x, 3)

    net = Odd()
    copied = twin(net)
    copied.f.weight.data.zero_()
    copied.f.bias.data.fill_(1)
    assert copied(torch.randn(1, 4)).tolist() == [[1.0] * 4]
