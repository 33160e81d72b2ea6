"""A cut model runs wherever the dense one does: in training, with its other heads, around a scope, on other inputs."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import Tensor, nn

import nasprune
from nasprune.common.inputs import Inputs
from nasprune.cut.compare import compare
from nasprune.cut.life import doubled, everywhere, resized, why_not
from nasprune.cut.plan import PrunePlan
from nasprune.cut.stirred import noise_like
from nasprune.cut.trial_plans import half_plan
from nasprune.cut.verify import prove
from tests.forks import forked

X = torch.rand(1, 3, 16, 16)


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.f = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 20, 3), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.b(self.a(x).relu()).relu().mean((2, 3)))


class HeadInTraining(Trunk):
    """As Inception: an auxiliary head on an inner layer, in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Conv2d(12, 5, 1)

    def forward(self, x):
        inner = self.a(x).relu()
        y = self.f(self.b(inner).relu().mean((2, 3)))
        return (y, self.aux(inner).mean((2, 3))) if self.training else y


class OtherHead(Trunk):
    """A head that this call does not ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(20, 7)

    def forward(self, x, task="first"):
        features = self.b(self.a(x).relu()).relu().mean((2, 3))
        return self.f(features) if task == "first" else self.other(features)


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l1, self.l2, self.l3 = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 20, 3), nn.Conv2d(20, 20, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.inner = self.l1(x).relu()
        return self.l3(self.l2(self.inner).relu()).relu()


class Detector(nn.Module):
    """Reads an inner layer of its backbone past the backbone's output."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.small, self.large = Backbone(), nn.Conv2d(12, 4, 1), nn.Conv2d(20, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        top = self.backbone(x)
        return self.small(self.backbone.inner), self.large(top)


def reasons(graph: nasprune.ModelGraph) -> dict[str, str | None]:
    return {group.name: group.frozen_because for group in graph.groups}


def halved(model: nn.Module, graph: nasprune.ModelGraph) -> nn.Module:
    plan = half_plan(graph, [group.name for group in graph.free_groups], [block.name for block in graph.free_blocks])
    return nasprune.build(model, graph, plan)


def test_what_feeds_a_head_of_training_is_left_whole():
    model = HeadInTraining()
    graph = nasprune.trace(model, X)
    found = reasons(graph)
    assert "in training mode" in found["a"]
    assert found["b"] is None
    outputs = halved(model, graph).train()(torch.rand(2, 3, 16, 16))
    assert [value.shape for value in outputs] == [(2, 5), (2, 5)]


def test_what_may_feed_a_head_that_never_runs_is_left_whole():
    model = OtherHead()
    graph = nasprune.trace(model, X)
    assert reasons(graph)["b"].startswith("`other` reads 20 channels and does not run on these inputs")
    assert reasons(graph)["a"] is None
    small = halved(model, graph)
    assert small(X, task="second").shape == (1, 7)


def test_the_rest_of_the_model_may_read_an_inner_layer_of_the_scope():
    model = Detector()
    graph = nasprune.trace(model, X, scope="backbone")
    assert "as a whole" in reasons(graph)["l1"]
    assert reasons(graph)["l2"] is None
    assert halved(model, graph)(X)[0].shape == (1, 4, 14, 14)


def test_a_search_gives_a_net_that_trains():
    result = nasprune.search(HeadInTraining(), X, "70%", trials=3)
    y, aux = result.model.train()(torch.rand(2, 3, 16, 16))
    (y.sum() + aux.sum()).backward()
    assert all(value.grad is not None for value in result.model.parameters())


class BakedSize(Trunk):
    def forward(self, x):
        if x.shape[-1] > 16:
            assert self.a.out_channels == 12
        return super().forward(x)


@pytest.mark.parametrize(
    ("kind", "where"), [(BakedSize, "on images of another size"), (HeadInTraining, "in training mode")]
)
def test_a_cut_that_does_not_live_is_told_where(kind, where):
    dense, small = kind(), kind()
    small.a, small.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 20, 3)
    assert why_not(dense, small, everywhere(Inputs((X,)), whole=False)).startswith(where)
    assert why_not(small, small, everywhere(Inputs((X,)), whole=False)) == ""


def test_an_item_must_give_what_it_gives_alone():
    class Mixes(Trunk):
        def forward(self, x):
            return super().forward(x - x.mean(0))

    assert why_not(Trunk(), Mixes(), everywhere(Inputs((X,)), whole=False)).startswith("on two items at once")
    assert why_not(Mixes(), Mixes(), everywhere(Inputs((X,)), whole=False)) == ""


def test_two_items_and_larger_images():
    inputs = Inputs((X, 3), {"mask": torch.ones(1, 5)})
    two, larger = doubled(inputs), resized(inputs)
    assert [tuple(value.shape) for value in two.tensors] == [(2, 3, 16, 16), (2, 5)]
    assert torch.equal(two.args[0][:1], X)
    assert [tuple(value.shape) for value in larger.tensors] == [(1, 3, 32, 32), (1, 5)]


def test_large_images_are_tried_on_a_part():
    whole = torch.rand(1, 3, 224, 130)
    assert torch.equal(resized(Inputs((whole,))).args[0], whole[..., :64, :64])
    sizes = []

    class Watched(Trunk):
        def forward(self, x):
            sizes.append((tuple(x.shape[2:]), self.training))
            return super().forward(x)

    class Fixed(Watched):
        def forward(self, x):
            assert x.shape[2:] == whole.shape[2:]
            return super().forward(x)

    for kind, in_training in ((Watched, (64, 64)), (Fixed, (224, 130))):
        sizes.clear()
        assert why_not(kind(), kind(), everywhere(Inputs((whole,)), whole=True)) == ""
        assert [size for size, training in sizes if training] == [in_training]


class HeldSize(nn.Module):
    """Its program holds the number of pixels; the code does not."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 4)

    def forward(self, x):
        x = self.conv(x).relu().flatten(2)
        return self.head(x.sum(2) / x.shape[2])


def test_a_program_that_holds_a_size_is_compared_on_the_whole_image():
    model = HeldSize()
    graph = nasprune.trace(model, torch.rand(1, 3, 128, 128))
    plan = half_plan(graph, ["conv"], [])
    part = resized(noise_like(graph.example_inputs))
    assert "outputs differ" in compare(model, nasprune.build(model, graph, plan), graph, plan, [part]).reason
    assert prove(model, graph, plan).plan == plan


class Fussy(nn.Module):
    """On large images it takes multiples of four channels only."""

    def __init__(self):
        super().__init__()
        self.conv, self.other, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x):
        large = x.shape[2] >= 128
        x = self.conv(x).relu()
        if large and x.shape[1] % 4:
            raise ValueError("a multiple of four")
        return self.head(self.other(x).relu().mean((2, 3)))


def test_what_fails_on_whole_images_only_is_left_whole():
    model = Fussy().eval()
    graph = nasprune.trace(model, torch.rand(1, 3, 128, 128))
    plan = PrunePlan(graph.signature, {"conv": (0, 1, 2, 3, 4, 6), "other": (0, 1, 2, 3, 4, 6)})
    proven = prove(model, graph, plan)
    assert list(proven.plan.keep) == ["other"]
    assert "a multiple of four" in proven.proof.frozen["conv"]


class ForLarge(nn.Module):
    """On whole images a layer runs that parts never reach: in training, or in batches."""

    def __init__(self, runs):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 8, 1)
        self.extra, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)
        self.runs = runs

    def forward(self, x):
        large = x.shape[2] >= 128 and (len(x) > 1 if self.runs == "in batches" else self.training)
        x = self.a(x).relu()
        if large:
            x = self.extra(x)
        return self.head(self.b(x).relu().mean((2, 3)))


@pytest.mark.parametrize("runs", ["in training", "in batches"])
def test_layers_that_only_whole_images_reach_are_kept_alive(runs):
    model = ForLarge(runs).eval()
    graph = nasprune.trace(model, torch.rand(1, 3, 128, 128))
    assert "expected input[2, 4, 32, 32]" in {group.name: group for group in graph.groups}["a"].frozen_because
    small = nasprune.search(model, torch.rand(1, 3, 128, 128), "90%", trials=3).model.train()
    assert small(torch.rand(2, 3, 128, 128)).shape == (2, 4)


class ViewsLarge(nn.Module):
    """In training it gives whole images the number of channels that it was made with."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x):
        large = x.shape[2] >= 128 and self.training
        x = self.a(x).relu()
        if large:
            x = x.view(len(x), 8, 32, 32)
        return self.head(self.b(x).relu().mean((2, 3)))


def test_code_that_only_whole_images_reach_in_training_is_found_by_the_proof():
    model = ViewsLarge().eval()
    graph = nasprune.trace(model, torch.rand(1, 3, 128, 128))
    proven = prove(model, graph, half_plan(graph, ["a", "b"], []))
    assert list(proven.plan.keep) == ["b"]
    assert "in training mode: RuntimeError: shape '[2, 8, 32, 32]' is invalid" in proven.proof.frozen["a"]


class Positive(Trunk):
    """For inputs in [0, 1]: the root of a negative number is none."""

    def forward(self, x):
        return super().forward(x.sqrt())


def test_the_proof_draws_inputs_that_the_model_was_made_for():
    model = Positive()
    result = nasprune.search(model, X, "70%", trials=3)
    assert result.report.proof.ok
    with pytest.raises(nasprune.NaspruneError, match="no finite number on its example inputs"):
        nasprune.search(model, X - 2, "70%", trials=3)


def test_a_refitted_net_is_verified_by_its_structure():
    images, labels = torch.rand(40, 3, 16, 16), torch.arange(40) % 5
    model = Trunk()
    result = nasprune.search(model, X, "70%", data=(images, labels))
    proof = nasprune.verify(model, result.model, result.graph, result.plan)
    assert proof.ok
    assert "its own have changed" in proof.compares
    other = nasprune.PrunePlan(result.plan.signature)
    with pytest.raises(nasprune.PlanError, match="other tensors"):
        nasprune.verify(model, result.model, result.graph, other)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c, self.n = nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.n(self.c(x))).relu()


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.blocks, self.f = nn.Conv2d(3, 12, 3), nn.Sequential(Residual(), Residual()), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.blocks(self.a(x)).mean((2, 3)))


def test_a_net_without_a_block_is_made_of_torch_and_the_users_classes(tmp_path):
    model = Deep().eval()
    graph = nasprune.trace(model, X)
    plan = half_plan(graph, [group.name for group in graph.free_groups], ["blocks.0"])
    small = nasprune.build(model, graph, plan).eval()
    assert {type(module).__module__.split(".")[0] for module in small.modules()} <= {
        "torch",
        type(model).__module__.split(".")[0],
    }
    expected = small(X)
    assert torch.equal(torch.jit.script(small)(X), expected)
    assert torch.equal(copy.deepcopy(small)(X), expected)
    assert torch.equal(torch.export.export(small, (X,)).module()(X), expected)
    assert torch.allclose(torch.compile(small, backend="eager")(X), expected)
    torch.save(nn.Sequential(small.a, nn.Identity(), small.f), tmp_path / "parts.pt")

    def load_without_nasprune():
        for name in [name for name in sys.modules if name.partition(".")[0] == "nasprune"]:
            sys.modules[name] = None
        torch.load("parts.pt", weights_only=False)
        print("loaded")

    assert forked(load_without_nasprune, tmp_path).ended().strip() == "loaded"


def test_a_cut_net_trains_in_a_process_group(tmp_path):
    model = Deep().eval()
    graph = nasprune.trace(model, X)
    small = nasprune.build(model, graph, half_plan(graph, [group.name for group in graph.free_groups], ["blocks.0"]))
    alone = copy.deepcopy(small).train()
    alone(X.repeat(4, 1, 1, 1)).square().mean().backward()
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        together = nn.parallel.DistributedDataParallel(small.train())
        together(X.repeat(4, 1, 1, 1)).square().mean().backward()
    finally:
        torch.distributed.destroy_process_group()
    for own, other in zip(alone.parameters(), small.parameters(), strict=True):
        assert own.grad is not None
        assert torch.equal(own.grad, other.grad)
