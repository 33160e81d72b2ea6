"""Nets written in unusual ways cost what a plain net that computes the same costs, or are cut last."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nasprune.cut.stirred import distinct
from nasprune.data import ArrayDataset
from nasprune.harm.damage import damages
from nasprune.run.names import scorer, search_space
from nasprune.run.trace import trace
from tests.harm.priced import INPUT, Residual, assert_close, harms_of


class Functional(nn.Module):
    """The middle convolution is called as a function; its weight is computed first where `scale` is not 1."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        weight = self.b.weight if self.scale == 1 else self.scale * self.b.weight
        x = nn.functional.conv2d(self.a(x).relu(), weight, self.b.bias).relu()
        return self.head(x.mean((2, 3)))


class Modular(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize("refit", [False, True])
def test_functions_are_priced_and_scored_as_modules_are(refit: bool) -> None:
    torch.manual_seed(0)
    model, plain, x = Functional(), Modular(), torch.randn(64, *INPUT[1:])
    plain.load_state_dict(model.state_dict())
    assert_close(harms_of(model, x, refit=refit), harms_of(plain, x, refit=refit))
    data = ArrayDataset(x, torch.arange(64) % 4)
    for name in ("obs", "taylor", "apoz", "nisp"):
        both = [scorer(name).scores(net, trace(net, x[:1]), data=data) for net in (model.eval(), plain.eval())]
        for group in ("a", "b"):
            torch.testing.assert_close(both[0][group], both[1][group])


def test_groups_that_computed_weights_read_are_narrowed_last() -> None:
    torch.manual_seed(0)
    model, x = Functional(scale=2.0).eval(), torch.randn(64, *INPUT[1:])
    graph = trace(model, x[:1])
    space = search_space(graph, "widths", divisor=2)
    scores = scorer("obs").scores(model, graph, data=ArrayDataset(x, torch.arange(64) % 4))
    assert len(set(scores["a"].tolist())) == 8
    found = damages(model, graph, space, scores, [x], refit=True)
    assert set(found) == {"a", "b"}
    assert found["a"][8] == 0
    assert found["a"][2] > found["a"][6] > max(found["b"].values()) > 0


class Tokens(nn.Module):
    """Gives its embeddings as well, so that they keep their width."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 6)
        self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 4)

    def features(self, x: Tensor) -> Tensor:
        return self.head((x + self.b(nn.functional.relu(self.a(x), inplace=True))).mean(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.table(x)
        return self.features(x), x


class Embedded(Tokens):
    """Reads what `Tokens` reads behind its table."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.features(x), x


@pytest.mark.parametrize("refit", [False, True])
def test_nets_that_read_integers_are_priced_as_behind_their_table(refit: bool) -> None:
    torch.manual_seed(0)
    model, behind, x = Tokens(), Embedded(), torch.randint(20, (40, 5))
    behind.load_state_dict(model.state_dict())
    found = harms_of(model, x, refit=refit)
    expected = harms_of(behind, model.table(x).detach(), refit=refit)
    assert found["a"] == pytest.approx(expected["a"], rel=1e-4)
    assert found["a"][2] > found["a"][6] > 0


class Biased(nn.Module):
    """Adds to every image what a small net makes of a fixed table, as position biases do."""

    def __init__(self, rows: int, *, spread: bool = False) -> None:
        super().__init__()
        self.spread = spread
        self.register_buffer("table", torch.randn(rows, 3))
        self.a, self.b, self.head = nn.Linear(3, 8), nn.Linear(8, 6), nn.Linear(6, 4)
        with torch.no_grad():
            self.head.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        table = self.table.expand(len(x), *self.table.shape) if self.spread else self.table
        return self.head(x + self.b(self.a(table).relu()))


@pytest.mark.parametrize("rows", [3, 4])
def test_a_layer_that_reads_a_constant_counts_for_every_image(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, each, x = Biased(rows), Biased(rows, spread=True), torch.randn(64, rows, 6)
    each.load_state_dict(model.state_dict())
    found = harms_of(model, x)
    monkeypatch.setattr("nasprune.harm.fisher.batch_size", lambda _: 1)  # the same random directions
    assert_close(found, harms_of(each, x))


class Double(nn.Module):
    """The half that runs in bfloat16 hands over to a half in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.c, self.head = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).relu()).relu().mean((2, 3))
        return self.head(self.c(x.to(self.c.weight.dtype)).relu())


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize(
    ("body", "head", "rel"),
    [
        (torch.float64, torch.float64, 1e-4),
        (torch.bfloat16, torch.bfloat16, 0.2),
        (torch.bfloat16, torch.float32, 0.2),
        (torch.float32, torch.float64, 1e-4),
    ],
)
def test_other_floating_types_are_priced_as_float32(
    refit: bool, body: torch.dtype, head: torch.dtype, rel: float
) -> None:
    torch.manual_seed(0)
    model, x = distinct(Double()), torch.randn(64, 3, 6, 6)
    expected = harms_of(model, x, refit=refit)
    graph = trace(model, x[:1])
    space = search_space(graph, "widths", divisor=2)
    scores = {group.name: torch.arange(group.width, 0.0, -1) for group in graph.free_groups}
    for layers, kind in (((model.a, model.b), body), ((model.c, model.head), head)):
        for layer in layers:
            layer.to(kind)
    assert_close(damages(model, graph, space, scores, [x], refit=refit), expected, rel)


class Video(nn.Module):
    """Convolutions over frames (n, time, 3, h, w). order: how the frames reach them."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 4)
        self.body = Residual(6)

    def frames(self, x: Tensor) -> Tensor:
        return self.body(self.b(self.a(x).relu())).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        n, time = x.shape[:2]
        if self.order == "images":
            y = self.frames(x.flatten(0, 1)).unflatten(0, (n, time))
        elif self.order == "time":
            y = self.frames(x.transpose(0, 1).flatten(0, 1)).unflatten(0, (time, n)).transpose(0, 1)
        else:
            y = torch.stack([self.frames(x[:, i]) for i in range(time)], 1)
        return self.head(y.mean(1))


@pytest.mark.parametrize("order", ["images", "time"])
@pytest.mark.parametrize(("images", "size"), [(6, 64), (1, 64), (6, 1)])
def test_frames_count_for_their_image(order: str, images: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, apart, x = Video(order), Video("apart"), torch.randn(images, 3, 3, 8, 8)
    apart.load_state_dict(model.state_dict())
    priced = 1 if order == "time" else size  # one by one, since images do not come first
    monkeypatch.setattr("nasprune.harm.fisher.batch_size", lambda _: size)
    graph = trace(model.eval(), torch.randn(2, 3, 3, 8, 8))
    assert [block.name for block in graph.blocks] == ["body"]
    space = search_space(graph, "widths", divisor=2)
    scores = {group.name: torch.arange(group.width, 0.0, -1) for group in graph.free_groups}
    found = damages(model, graph, space, scores, [x], refit=False)
    monkeypatch.setattr("nasprune.harm.fisher.batch_size", lambda _: priced)
    assert_close(found, damages(apart.eval(), graph, space, scores, [x], refit=False))


class Padding(nn.Conv2d):
    """Pads in its own `forward`; its `padding` says 0."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(nn.functional.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


@pytest.mark.parametrize("size", [8, 4])
def test_a_convolution_with_its_own_code_is_priced_as_what_it_calls(size: int) -> None:
    def net(*middle: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *middle, nn.ReLU(), nn.Flatten(),
            nn.Linear(6 * (size // 2) ** 2, 4),
        )  # fmt: skip

    model, plain = net(Padding(8, 6, 2, stride=2)), net(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 6, 2, stride=2))
    plain.load_state_dict(dict(zip(plain.state_dict(), model.state_dict().values(), strict=True)))
    x = torch.randn(16, 3, size, size)
    found, expected = (harms_of(one, x, refit=True) for one in (model, plain))
    assert_close({"0": found["0"], "3": found["2"]}, expected)
    assert found["0"][2] > found["0"][6] > 0


class Keywords(nn.Module):
    def __init__(self, *, named: bool) -> None:
        super().__init__()
        self.named = named
        self.a, self.body, self.head = nn.Conv2d(3, 6, 3), Residual(6), nn.Linear(6, 4)
        self.b = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.named:
            x = self.body(self.b(input=self.a(input=x).relu()))
            return self.head(input=x.mean((2, 3)))
        return self.head(self.body(self.b(self.a(x).relu())).mean((2, 3)))


@pytest.mark.parametrize("refit", [False, True])
def test_modules_may_be_called_with_keywords(refit: bool) -> None:
    torch.manual_seed(0)
    model, plain, x = Keywords(named=True), Keywords(named=False), torch.randn(16, 3, 6, 6)
    plain.load_state_dict(model.state_dict())
    assert_close(harms_of(model, x, refit=refit), harms_of(plain, x, refit=refit))


class Tied(nn.Module):
    """Two modules hold one weight; or one module runs twice."""

    def __init__(self, *, twice: bool) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.c = self.b
        if not twice:
            self.c = nn.Linear(6, 6)
            self.c.weight, self.c.bias = self.b.weight, self.b.bias

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5  # inputs may be written into
        return self.head(self.c(self.b(self.a(x).relu()).relu()).relu())


def test_every_module_that_holds_a_weight_counts() -> None:
    torch.manual_seed(0)
    model, twice, x = Tied(twice=False), Tied(twice=True), torch.randn(32, 5)
    twice.load_state_dict(model.state_dict(), strict=False)
    assert_close(harms_of(model, x.clone()), harms_of(twice, x.clone()))


class Heads(nn.Module):
    """The block is behind the second output only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.body = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3), Residual(6)
        self.heads = nn.ModuleList([nn.Linear(6, 4), nn.Linear(6, 4)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.body(self.b(x).relu())
        return self.heads[0](self.a(x).relu().mean((2, 3))), self.heads[1](y.mean((2, 3)))


def test_what_the_first_output_does_not_depend_on_is_cut_last() -> None:
    torch.manual_seed(0)
    found = harms_of(Heads(), torch.randn(16, 3, 6, 6))
    assert set(found) == {"a", "b", "body"}
    assert found["body"][1] == found["b"][6] == 0
    assert min(found["body"][0], found["b"][4]) > found["a"][2] > 0
