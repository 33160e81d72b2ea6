"""Damages from one backward pass against the divergence that is measured by cutting."""

from __future__ import annotations

import copy
from math import exp

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from nasprune.calibration.consumers import consumers
from nasprune.cut.selection import best_units
from nasprune.cut.verify import distinct
from nasprune.data import ArrayDataset
from nasprune.errors import InputError
from nasprune.harm import damage
from nasprune.harm.damage import Damages, _covariances, _interpolated, _measured, damages
from nasprune.run.names import scorer, search_space
from nasprune.run.trace import trace
from nasprune.space.choices import SearchSpace, WidthChoice
from nasprune.testing import SampleNet

INPUT = (1, 3, 8, 8)
T = 4.0


def divergence(model: nn.Module, changed: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        p, q = ((net(x) / T).log_softmax(1) for net in (model, changed))
    return float((p.exp() * (p - q)).sum(1).mean()) * T * T


@pytest.fixture(scope="module")
def case() -> tuple:
    torch.manual_seed(0)
    model = distinct(SampleNet()).eval()
    graph = trace(model, torch.randn(INPUT))
    space = search_space(graph, "widths", divisor=4)
    scores = {group.name: torch.rand(group.width) for group in graph.free_groups}
    return model, graph, space, scores, torch.randn(1024, *INPUT[1:])


def test_damages_order_options_as_cutting_does(case: tuple) -> None:
    model, graph, space, scores, x = case
    found = damages(model, graph, space, scores, [x], refit=False)
    priced, measured = [], []
    for choice in space.widths:
        group = graph.group(choice.name)
        for option in choice.options[:-1]:
            changed = copy.deepcopy(model)
            kept = torch.zeros(group.width, dtype=torch.bool)
            kept[list(best_units(group, scores[group.name], option))] = True
            for one in consumers(changed, graph, group):
                flat = one.modules[0].weight.data
                gone = torch.from_numpy(one.channels[~kept.numpy()]).flatten()
                per_group = flat.shape[1]
                for channel in gone.tolist():
                    rows = len(flat) // (1 if one.modules[0].weight.ndim == 2 else one.modules[0].groups)
                    part, position = divmod(channel, per_group)
                    flat[part * rows : (part + 1) * rows, position] = 0
            priced.append(found[choice.name][option])
            measured.append(divergence(model, changed, x))
    for block in space.blocks:
        changed = copy.deepcopy(model)
        setattr(changed, block.name, nn.ReLU())
        priced.append(found[block.name][0])
        measured.append(divergence(model, changed, x))
    assert spearmanr(priced, measured)[0] > 0.8


def test_small_damages_are_the_divergence() -> None:
    """A linear net: the first-order change is exact, and the second-order divergence nearly so."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 4)).eval()
    with torch.no_grad():
        model[1].weight.mul_(0.1)
    graph, x = trace(model, torch.randn(1, 5)), torch.randn(4000, 5)
    space = search_space(graph, "widths", divisor=1)
    scores = {"0": torch.arange(8.0)}
    found = damages(model, graph, space, scores, [x], refit=False)
    measured: list[float] = []
    for option in reversed(range(1, 8)):
        changed = copy.deepcopy(model)
        changed[1].weight.data[:, : 8 - option] = 0
        measured.append(divergence(model, changed, x))
        assert found["0"][option] == pytest.approx(max(measured), rel=0.15)  # narrower never counts as less harmful


def test_refitting_lowers_damage_and_full_width_has_none(case: tuple) -> None:
    model, graph, space, scores, x = case
    plain, refitted = (damages(model, graph, space, scores, [x], refit=refit) for refit in (False, True))
    totals = [sum(sum(options.values()) for options in found.values()) for found in (plain, refitted)]
    assert totals[1] < totals[0]
    for choice in space.choices:
        assert plain[choice.name][choice.options[-1]] == 0
        assert set(plain[choice.name]) == set(choice.options)


def test_a_refit_on_dense_inputs_makes_nothing_good_that_was_lost_before(case: tuple) -> None:
    model, graph, space, scores, x = case
    mended, bare = (damages(model, graph, space, scores, [x], refit=True, mends=mends) for mends in (True, False))
    left = damage._left_by_refit(model, graph, {g.name: consumers(model, graph, g) for g in graph.free_groups})
    for choice in space.choices:
        option = choice.options[0]
        assert mended[choice.name][option] == pytest.approx(left[choice.name] * bare[choice.name][option])


def test_the_model_is_left_as_it_was(case: tuple) -> None:
    model, graph, space, scores, x = case
    model = copy.deepcopy(model).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (damages(model, graph, space, scores, [x[:32]], refit=True) for _ in range(2))
    assert first == second
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_options_between_measured_ones_are_interpolated() -> None:
    options = tuple(range(8, 513, 8))
    chosen = _measured(options)
    assert len(chosen) == 8
    assert (chosen[0], chosen[-1]) == (8, 504)
    harms = _interpolated(options, {option: (512 - option) ** 2 / 100 for option in chosen})
    assert harms[512] == 0
    assert list(harms.values()) == sorted(harms.values(), reverse=True)
    assert harms[256] == pytest.approx(256**2 / 100, rel=0.01)


class Functional(nn.Module):
    """The middle convolution is called as a function, so that no module reads what `a` makes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.conv2d(self.a(x).relu(), self.b.weight, self.b.bias).relu()
        return self.head(x.mean((2, 3)))


def test_groups_that_no_module_reads_are_narrowed_last() -> None:
    torch.manual_seed(0)
    model, x = Functional().eval(), torch.randn(64, *INPUT[1:])
    graph = trace(model, x[:1])
    space = search_space(graph, "widths", divisor=2)
    scores = scorer("obs").scores(model, graph, data=ArrayDataset(x, torch.arange(64) % 4))
    assert len(set(scores["a"].tolist())) == 8
    found = damages(model, graph, space, scores, [x], refit=True)
    assert set(found) == {"a", "b"}
    assert found["a"][8] == 0
    assert found["a"][2] > found["a"][6] > max(found["b"].values()) > 0


def test_without_inputs_it_says_what_is_missing(case: tuple) -> None:
    model, graph, space, scores, _ = case
    with pytest.raises(InputError, match="calibration inputs"):
        damages(model, graph, space, scores, [], refit=False)


def harms_of(model: nn.Module, inputs: Tensor, *, refit: bool = False, example: Tensor | None = None) -> Damages:
    """Damages of every option, with units kept in the order of their numbers."""
    graph = trace(model.eval(), inputs[:1] if example is None else example)
    space = search_space(graph, "widths", divisor=2)
    assert space.choices
    scores = {group.name: torch.arange(group.width, 0.0, -1) for group in graph.free_groups}
    return damages(model, graph, space, scores, [inputs], refit=refit)


def assert_close(found: Damages, expected: Damages, rel: float = 1e-4) -> None:
    assert list(found) == list(expected)
    for name, harms in expected.items():
        assert found[name] == pytest.approx(harms, rel=rel, abs=0.01 * rel * max(harms.values()))
        assert max(harms.values()) > 0


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 6)
        self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 4)

    def features(self, x: Tensor) -> Tensor:
        return self.head((x + self.b(nn.functional.relu(self.a(x), inplace=True))).mean(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.features(self.table(x))


class Embedded(Tokens):
    """Reads what `Tokens` reads behind its table."""

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


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


def test_covariances_far_from_zero_do_not_cancel() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    near = [torch.randn(400, 5) * torch.arange(1, 6) / 10 for _ in range(3)]
    found, expected = (
        _covariances(nn.Sequential(layer), {"0.weight": [layer]}, batches)["0.weight"]
        for batches in ([1000 + batch for batch in near], near)
    )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


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


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x).relu()


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
def test_groups_that_a_convolution_with_its_own_code_reads_are_narrowed_last(size: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), Padding(8, 6, 2, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(6 * (size // 2) ** 2, 4),
    )  # fmt: skip
    found = harms_of(model, torch.randn(16, 3, size, size), refit=True)
    assert found["0"][2] > found["0"][6] > max(found["2"].values()) > 0


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


def test_one_output_is_priced_by_its_squared_change() -> None:
    """A linear net: half the mean squared change of the output, measured by cutting."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 1)), torch.randn(8000, 5)
    found = harms_of(model, x)
    measured = []
    for option in (6, 4, 2):
        changed = copy.deepcopy(model)
        changed[1].weight.data[:, option:] = 0
        with torch.no_grad():
            measured.append(float((model(x) - changed(x)).square().mean()) / 2)
        assert found["0"][option] == pytest.approx(max(measured), rel=0.1)  # narrower never counts as less harmful


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


def test_a_choice_of_one_option_has_no_harm() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(8, 5)
    graph = trace(model.eval(), x[:1])
    space = SearchSpace((WidthChoice("0", (8,)),))
    assert damages(model, graph, space, {"0": torch.rand(8)}, [x], refit=False) == {"0": {8: 0.0}}


def test_what_the_refit_behind_makes_good_grows_with_the_layers_behind() -> None:
    """A chain of ten linear layers: each group is priced by the layers from its reader on."""
    torch.manual_seed(0)
    layers = [part for _ in range(9) for part in (nn.Linear(6, 6), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(6, 3)).eval()
    graph = trace(model, torch.randn(1, 6))
    readers = {group.name: consumers(model, graph, group) for group in graph.free_groups}
    left = damage._left_by_refit(model, graph, readers)
    assert [left[str(2 * n)] for n in range(9)] == pytest.approx([exp(-damage.MENDED * (8 - n) / 9) for n in range(9)])

    net = distinct(SampleNet()).eval()
    graph = trace(net, torch.randn(INPUT))
    left = damage._left_by_refit(net, graph, {})
    assert set(left) == {block.name for block in graph.blocks}
    assert all(exp(-damage.MENDED) <= share < 1 for share in left.values())
