"""Layers that run on several inputs are fitted to all of them, where no run needs what another gave."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nasprune.common.inputs import Inputs
from nasprune.common.shelf import Shelf
from nasprune.cut.plan import PrunePlan
from nasprune.cut.surgery import build
from nasprune.cut.trial_plans import half_plan
from nasprune.graph.model import ModelGraph
from nasprune.graph.together import gathered
from nasprune.refit.reconstruct import reconstruct
from nasprune.refit.sites import sites
from nasprune.refit.stream import Stream
from nasprune.refit.targets import Calls
from nasprune.run.trace import trace


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.body = nn.Conv2d(16, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(functional.relu(self.norm(self.stem(x)), inplace=True)).relu_().mean((2, 3))


class Siamese(nn.Module):
    """One encoder on both halves of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = Encoder(), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.encoder(x[:, :3]), self.encoder(x[:, 3:])], 1))


class Pyramid(nn.Module):
    """A head of two layers on three levels, with a batch norm for each level, as of EfficientDet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(6, 16, 3, padding=1)
        self.downs = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1, stride=2) for _ in range(2))
        self.tower, self.out = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 5, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(3))

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [self.stem(x).relu()]
        for down in self.downs:
            levels.append(down(levels[-1]).relu())
        return [self.out(norm(self.tower(level)).relu_()) for level, norm in zip(levels, self.norms, strict=True)]


class ByFunction(nn.Module):
    """A weight that a function multiplies with, on two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.weight = nn.Linear(6, 16), nn.Parameter(torch.randn(8, 16) / 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = (self.stem(one).relu() for one in (x.mean((2, 3)), x.amax((2, 3))))
        return functional.linear(a, self.weight) - functional.linear(b, self.weight)


class Crossed(nn.Module):
    """Of `one` and `two`, each run once needs the other: only one of them can be gathered. `again` needs itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.again = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.again(x.mean((2, 3))).relu())
        return self.two(self.one(x).relu()) + self.one(self.two(x).relu())


class Differently(nn.Module):
    """Other settings in the second run, and a module's weight that a function reads, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(6, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.wide = nn.Parameter(torch.randn(8, 8, 3, 3) / 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        near, far = functional.conv2d(x, self.wide, padding=1), functional.conv2d(x, self.wide, padding=2, dilation=2)
        return near + far + self.conv(x) + functional.conv2d(x, self.conv.weight, padding=1)


NETS = (Siamese, Pyramid, ByFunction)


def halved(kind: type[nn.Module]) -> tuple[nn.Module, ModelGraph, PrunePlan, Tensor]:
    torch.manual_seed(0)
    model, x = kind().eval(), torch.randn(48, 6, 8, 8)
    graph = trace(model, x[:1])
    return model, graph, half_plan(graph, [group.name for group in graph.free_groups]), x


class Irregular(nn.Module):
    """`often` runs more often on a batch than on an item, and a run of `dead` gives what nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.often, self.dead = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.mean((2, 3))).relu()
        x = torch.stack([self.often((i + 1) * x).relu() for i in range(2 if len(x) == 1 else 3)]).sum(0)
        first, second, _ = (self.dead((i + 1) * x).relu() for i in range(3))
        return first - second


class Refined(nn.Module):
    """A cell that reads what it gave before, and a head on all its results."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.cell, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.mean((2, 3))).relu()
        outputs = [self.head(x)]
        for _ in range(2):
            x = self.cell(x).relu()
            outputs.append(self.head(x))
        return torch.cat(outputs, 1)


class Template(nn.Module):
    """A layer that also runs on what the network holds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.both = nn.Linear(6, 16), nn.Linear(16, 16)
        self.query = nn.Parameter(torch.randn(1, 16))

    def forward(self, x: Tensor) -> Tensor:
        return self.both(self.stem(x.mean((2, 3))).relu()).relu() * self.both(self.query).relu()


class TwoNames(nn.Module):
    """A layer with two names, and a norm with two names behind two layers."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Conv2d(8, 8, 3, padding=1)
        self.stem, self.one, self.two = nn.Conv2d(6, 8, 1), nn.Sequential(layer), nn.Sequential(nn.MaxPool2d(2), layer)
        norm = nn.BatchNorm2d(8)
        self.a, self.b = (nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), norm) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = self.one(x).mean((2, 3), keepdim=True) + self.two(x).relu()
        return (self.a(x) + self.b(x.relu())).mean((2, 3))


def read_by(net: nn.Module, path: str, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """What a layer reads and gives in each of its runs."""
    read: list[Tensor] = []
    given: list[Tensor] = []
    layer = net.get_submodule(path)
    handle = layer.register_forward_hook(lambda _, args, y: (read.append(args[0].clone()), given.append(y.clone()))[:0])
    with torch.no_grad():
        net(x)
    handle.remove()
    return read, given


def error(dense: nn.Module, small: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        wanted, given = dense(x), small(x)
    a, b = (torch.cat([one.flatten(1) for one in (y if isinstance(y, list) else [y])], 1) for y in (wanted, given))
    return float((b - a).square().sum() / (a - a.mean(0)).square().sum())


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("method", ["lstsq", "obs"])
def test_a_refit_brings_the_net_nearer_and_batches_do_not_matter(kind: type[nn.Module], method: str) -> None:
    model, graph, plan, x = halved(kind)
    nets = [build(model, graph, plan).eval() for _ in range(3)]
    before = error(model, nets[0], x)
    for net, batches in zip(nets, (x, x.split(16), x.split(16)), strict=True):
        notes = reconstruct(model, net, graph, plan, batches, method, memory=0)
        assert not any("not refitted" in note or "one batch" in note for note in notes), notes
    assert error(model, nets[0], x) < 0.7 * before
    for name, value in nets[0].state_dict().items():
        assert torch.allclose(value, nets[1].state_dict()[name], rtol=1e-2, atol=1e-3), name
        assert torch.equal(nets[1].state_dict()[name], nets[2].state_dict()[name])


def test_the_weights_are_the_least_squares_over_all_runs() -> None:
    model, graph, plan, x = halved(Pyramid)
    small = build(model, graph, plan).eval()
    reconstruct(model, small, graph, plan, x.split(16), damp=0.0)
    (wanted, read), layer = (read_by(model, "out", x)[1], read_by(small, "out", x)[0]), small.get_submodule("out")
    rows = torch.cat([one.movedim(1, -1).reshape(-1, one.shape[1]) for one in read]).double()
    goal = torch.cat([one.movedim(1, -1).reshape(-1, one.shape[1]) for one in wanted]).double()
    best = torch.linalg.lstsq(torch.cat([rows, torch.ones(len(rows), 1)], 1), goal).solution
    assert torch.allclose(layer.weight[:, :, 0, 0].double(), best[:-1].T, atol=1e-3)
    assert torch.allclose(layer.bias.double(), best[-1], atol=1e-3)


@pytest.mark.parametrize("kind", [*NETS, Crossed])
def test_another_order_gives_the_same(kind: type[nn.Module]) -> None:
    model, graph, _, x = halved(kind)
    program = graph.program
    order = gathered(program, {nodes for nodes in program.multiplying.values() if len(nodes) > 1})
    assert sorted(order.nodes, key=program.live.index) == list(program.live)
    for group in order.together:
        first = order.nodes.index(group[0])
        assert order.nodes[first : first + len(group)] == group
    with Shelf(2**30) as shelf, torch.no_grad():
        calls = Calls(shelf)
        calls.put(Inputs((x[:1],)))
        found = Stream(model, program, calls, shelf, order.nodes).outputs(calls[0])
        wanted = model(x[:1])
    for a, b in zip(found, wanted if isinstance(wanted, list) else [wanted], strict=True):
        assert torch.equal(a, b)


def test_runs_that_need_each_other_are_no_one_layer() -> None:
    model, graph, _, _ = halved(Crossed)
    found = [site.path for site in sites(model, graph, PrunePlan(graph.signature))]
    assert found in (["one"], ["two"])


@pytest.mark.parametrize(
    ("kind", "usable", "named"),
    [
        (Irregular, ["stem", "often", "dead"], "often, dead are"),
        (Refined, ["stem", "head"], "cell is"),
        (Template, ["stem", "both"], None),
        (TwoNames, ["stem", "one.0", "a.0", "b.0"], None),
    ],
)
def test_which_layers_can_be_fitted(kind: type[nn.Module], usable: list[str], named: str | None) -> None:
    model, graph, plan, x = halved(kind)
    found = sites(model, graph, PrunePlan(graph.signature))
    assert [site.path for site in found] == usable
    assert all(site.norm is None for site in found)
    for batches in (x, x.split(16)):
        small = build(model, graph, plan).eval()
        before = error(model, small, x)
        notes = [note for note in reconstruct(model, small, graph, plan, batches) if "not refitted" in note]
        assert error(model, small, x) < before or kind is Irregular
        assert [note.startswith(str(named)) for note in notes] == ([True] if named else []), notes


def test_runs_with_other_settings_are_no_one_layer() -> None:
    model, graph, plan, x = halved(Differently)
    assert [site.path for site in sites(model, graph, PrunePlan(graph.signature))] == ["stem"]
    notes = reconstruct(model, build(model, graph, plan), graph, plan, x.split(16))
    assert any("conv, wide" in note or "wide, conv" in note for note in notes), notes


def test_without_a_program_shared_layers_keep_their_weights_and_are_named() -> None:
    class ByTheBatch(Siamese):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y[:, :3] if len(x) > 1 and x.max() > 1e6 else y

    model, graph, plan, x = halved(ByTheBatch)
    small = build(model, graph, plan)
    weight = small.get_submodule("encoder.body").weight.clone()
    notes = reconstruct(model, small, graph, plan, x)
    assert torch.equal(small.get_submodule("encoder.body").weight, weight)
    assert any(note.startswith("layers that run several times keep their weights") for note in notes)
