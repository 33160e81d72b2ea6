"""Candidates, mixtures and nets that differ from the usual ones: own weights, odd shapes, other rules of mixing."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nasprune import Supernet
from nasprune.supernet.price.counting import count_module
from nasprune.supernet.storage import load_supernet, save_supernet


class Own(nn.Module):
    """A stem, three edges in a chain and a head. alphas: a parameter for each edge."""

    def __init__(self, candidates, channels: int = 8, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.edges = nn.ModuleList(nn.ModuleList(candidates()) for _ in range(3))
        self.alphas = nn.ParameterList(torch.randn(len(edge)) for edge in self.edges)
        self.head = nn.Linear(channels, 10)

    def share(self, alpha: Tensor) -> Tensor:
        return alpha.softmax(0)

    def mix(self, edge: nn.ModuleList, shares: Tensor, x: Tensor) -> Tensor:
        return sum(w * op(x) for w, op in zip(shares, edge, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for alpha, edge in zip(self.alphas, self.edges, strict=True):
            x = self.mix(edge, self.share(alpha), x)
        return self.head(x.mean((2, 3)))


def known(edge) -> Tensor:
    """`weights=` of `Own`."""
    return edge.net.alphas[edge.index]


def example(size: int = 8) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


class Kernel(nn.Module):
    """A convolution whose `repr` says nothing of its size."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, kernel, kernel) / channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)


class Repeated(Kernel):
    """Its setting is a plain attribute, and decides how often the convolution runs."""

    def __init__(self, channels: int, times: int) -> None:
        super().__init__(channels, 3)
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = super().forward(x)
        return x


@pytest.mark.parametrize(
    "candidates",
    [
        lambda: [Kernel(8, 1), Kernel(8, 3), Kernel(8, 5), nn.Identity()],
        lambda: [Repeated(8, 1), Repeated(8, 2), nn.Identity()],
    ],
)
def test_candidates_that_look_alike_have_their_own_prices(candidates):
    whole = Supernet.from_model(Own(candidates).eval(), example(), weights=known)
    costs = whole.structure.prices.of_choice(whole.choices[0])
    assert len({cost.fvcore for cost in costs}) == len(costs)
    trimmed = whole.trim("60%", keep_max=1)
    assert trimmed.report.after == count_module(trimmed.model, (1, 3, 8, 8))


def cut_to_one(net: nn.Module, x: Tensor, stay: int) -> tuple[Supernet, nn.Module]:
    """A supernet with one candidate left of each choice, and the net with the others silenced by hand."""
    whole = Supernet.from_model(net.eval(), x, weights=known)
    small = whole.keep({choice.name: [stay] for choice in whole.choices})
    silenced = copy.deepcopy(net)
    with torch.no_grad():
        for alpha in silenced.alphas:
            alpha[[k for k in range(len(alpha)) if k != stay]] = -torch.inf
    return small, silenced


SHAPES = {
    "unpadded": lambda: [nn.Conv2d(8, 8, 3), nn.AvgPool2d(3, 1)],
    "halved": lambda: [nn.Conv2d(8, 8, 3, 2, 1), nn.AvgPool2d(2, ceil_mode=True)],
    "halved, rounded down": lambda: [nn.Conv2d(8, 8, 2, 2), nn.AvgPool2d(2)],
    "doubled": lambda: [nn.ConvTranspose2d(8, 8, 2, 2), nn.Upsample(scale_factor=2)],
    "alike": lambda: [nn.Conv2d(8, 8, 3, padding=1), nn.AvgPool2d(3, 1, 1)],
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("stay", [0, 1])
def test_zeros_have_the_shape_of_what_went_at_every_size(name, stay):
    small, silenced = cut_to_one(Own(SHAPES[name]), example(16), stay)
    for size in (16, 19, 33):
        torch.testing.assert_close(small.net(example(size)), silenced(example(size)))
    assert small.counts == count_module(small.net, (1, 3, 16, 16))


class Tokens(Own):
    """Edges on tokens (n, T, 16), the first of which makes them wider where candidates do."""

    def __init__(self, candidates) -> None:
        super().__init__(candidates)
        self.stem, self.head = nn.Linear(4, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for alpha, edge in zip(self.alphas, self.edges, strict=True):
            x = self.mix(edge, self.share(alpha), x)[..., :16]
        return self.head(x.mean(1))


TOKENS = {
    "wider": lambda: [nn.Linear(16, 48), nn.Sequential(nn.Linear(16, 4), nn.Linear(4, 48))],
    "alike": lambda: [nn.Linear(16, 16), nn.Identity()],
    "without weights": lambda: [nn.LayerNorm(16, elementwise_affine=False), nn.Identity()],
}


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_may_be_of_another_number(name):
    small, silenced = cut_to_one(Tokens(TOKENS[name]), torch.randn(2, 5, 4), 1)
    for count in (5, 7):
        x = torch.randn(3, count, 4)
        torch.testing.assert_close(small.net(x), silenced(x))


class Dropped(nn.Conv2d):
    def forward(self, x: Tensor, drop: float = 0.0) -> Tensor:
        return super().forward(x) * (1 - drop)


class ByKeyword(Own):
    def mix(self, edge: nn.ModuleList, shares: Tensor, x: Tensor) -> Tensor:
        return sum(w * op(x, drop=0.1) for w, op in zip(shares, edge, strict=True))


class Positional(Own):
    def mix(self, edge: nn.ModuleList, shares: Tensor, x: Tensor) -> Tensor:
        return sum(w * op(x, 0.1) for w, op in zip(shares, edge, strict=True))


class InPlace(Own):
    def mix(self, edge: nn.ModuleList, shares: Tensor, x: Tensor) -> Tensor:
        outputs = [op(x) for op in edge]
        for w, output in zip(shares, outputs, strict=True):
            output.mul_(w)
        return torch.stack(outputs).sum(0)


@pytest.mark.parametrize("kind", [ByKeyword, Positional, InPlace])
def test_candidates_are_called_and_mixed_in_other_ways(kind):
    small, silenced = cut_to_one(kind(lambda: [Dropped(8, 8, 1), Dropped(8, 8, 3, padding=1)]), example(), 1)
    torch.testing.assert_close(small.net(example()), silenced(example()))
    small.net.train()(example()).sum().backward()
    assert small.net.stem.weight.grad is not None


def test_zeros_take_no_memory_where_nobody_writes_into_them():
    small, _ = cut_to_one(Own(SHAPES["alike"]), example(), 1)
    zeros = small.net.edges[0][0](torch.randn(2, 8, 8, 8))
    assert zeros.shape == (2, 8, 8, 8)
    assert zeros.untyped_storage().nbytes() == 8 * 4


def mixed_four() -> list[nn.Module]:
    return [nn.Identity(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.AvgPool2d(3, 1, 1)]


class Columns(Own):
    """Its architecture weights are the columns of one parameter."""

    def __init__(self, candidates) -> None:
        super().__init__(candidates)
        self.alphas = nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for number, edge in enumerate(self.edges):
            x = self.mix(edge, self.share(self.alphas[:, number]), x)
        return self.head(x.mean((2, 3)))


class Flat(Columns):
    """Its architecture weights are pieces of one flat parameter."""

    def __init__(self, candidates) -> None:
        super().__init__(candidates)
        self.alphas = nn.Parameter(torch.randn(12))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for number, edge in enumerate(self.edges):
            x = self.mix(edge, self.share(self.alphas[4 * number : 4 * number + 4]), x)
        return self.head(x.mean((2, 3)))


HELD = {
    Columns: lambda edge: edge.net.alphas[:, edge.index],
    Flat: lambda edge: edge.net.alphas[4 * edge.index : 4 * edge.index + 4],
}


@pytest.mark.parametrize("kind", HELD)
def test_what_stays_has_the_whole_mixture_where_weights_are_columns_or_pieces(kind):
    whole = Supernet.from_model(kind(mixed_four).eval(), example(), weights=HELD[kind])
    small = whole.keep({choice.name: [2] for choice in whole.choices})
    x = small.net.stem(example())
    for edge in small.net.edges:
        x = edge[2](x)
    torch.testing.assert_close(small.net(example()), small.net.head(x.mean((2, 3))))
    assert not small.structure.notes


class Absolute(Own):
    def share(self, alpha: Tensor) -> Tensor:
        return alpha.abs() / alpha.abs().sum()


class Drawn(Own):
    """Shares are drawn, as DrNAS does; weights of minus ten thousand make that fail.

    Arguments are checked whatever ran before: torch.compile switches these checks off for the whole process.
    """

    def share(self, alpha: Tensor) -> Tensor:
        return torch.distributions.Dirichlet(functional.elu(alpha) + 1, validate_args=True).rsample()


def test_drawn_shares_stay_as_they_are_and_are_told():
    net = Drawn(mixed_four).eval()
    whole = Supernet.from_model(net, example(), weights=known)
    trimmed = whole.trim("60%", keep_max=2, scorer="flops_order")
    for alpha, before in zip(trimmed.model.alphas, net.alphas, strict=True):
        assert torch.equal(alpha, before)
    assert trimmed.model(example()).isfinite().all()
    assert any("no softmax of the architecture weights" in note for note in trimmed.report.notes)


class Sigmoids(Own):
    def share(self, alpha: Tensor) -> Tensor:
        return alpha.sigmoid() / alpha.sigmoid().sum()


class Warm(Own):
    def share(self, alpha: Tensor) -> Tensor:
        return (alpha / 2).softmax(0)


def renormalised(net: Own, kept: tuple[int, ...], x: Tensor) -> Tensor:
    """What the net would give if the shares of the candidates `kept` made up its mixtures."""
    x = net.stem(x)
    for alpha, edge in zip(net.alphas, net.edges, strict=True):
        shares = net.share(alpha)[list(kept)]
        x = sum(w * edge[k](x) for w, k in zip(shares / shares.sum(), kept, strict=True))
    return net.head(x.mean((2, 3)))


WAYS = {"unknown": None, "computed": lambda edge: known(edge) * 1.0, "held": known}


@pytest.mark.parametrize("ways", WAYS)
@pytest.mark.parametrize("kind", [Own, Warm, Absolute, Sigmoids])
def test_computed_shares_of_what_stays_make_up_the_whole_mixture(kind, ways):
    net = kind(mixed_four).eval()
    whole = Supernet.from_model(net, example(), weights=WAYS[ways])
    small = whole.keep({choice.name: [0, 1, 3] for choice in whole.choices}).keep(
        {choice.name: [0, 2] for choice in whole.choices}
    )
    torch.testing.assert_close(small.net(example()), renormalised(net, (0, 3), example()))
    told = [note for note in small.structure.notes if "scaled to make up the whole mixture" in note]
    assert bool(told) == (ways != "held" or kind is Absolute)
    assert small.counts == count_module(small.net, (2, 3, 8, 8))


def test_places_of_one_choice_are_scaled_by_shares_of_their_own():
    net = Own(mixed_four).eval()
    whole = Supernet.from_model(net, example(), group=lambda edge: "all")
    small = whole.keep({"all": [1, 2]})
    torch.testing.assert_close(small.net(example()), renormalised(net, (1, 2), example()))


def test_what_is_scaled_is_saved_and_loaded_into_a_net_of_other_shares(tmp_path):
    net = Own(mixed_four).eval()
    whole = Supernet.from_model(net, example())
    small = whole.keep({choice.name: [1, 2] for choice in whole.choices})
    save_supernet(small, tmp_path)
    loaded = load_supernet(tmp_path, Own(mixed_four, seed=1).eval())
    assert torch.equal(loaded.net(example()), small.net(example()))


class SeldomTheSame(Own):
    """Every other draw gives all to the first two candidates; where their weights are low, nothing is finite."""

    def share(self, alpha: Tensor) -> Tensor:
        first = torch.tensor([0.5, 0.5, 0.0, 0.0]) if torch.rand(()) < 0.5 else torch.tensor([0.1, 0.1, 0.4, 0.4])
        return (first + 0 * alpha) / (alpha > -100).all()


@pytest.mark.parametrize("seed", range(4))
def test_one_draw_that_gives_removed_candidates_nothing_does_not_hide_the_others(seed):
    whole = Supernet.from_model(SeldomTheSame(mixed_four).eval(), example(), weights=known)
    torch.manual_seed(seed)
    small = whole.keep({choice.name: [0, 1] for choice in whole.choices})
    assert any("keep 80% of the mixture, and 2 more choices" in note for note in small.structure.notes)


class Drawing(Own):
    """Its candidates see noise of torch, Python and NumPy, in evaluation mode too."""

    def mix(self, edge: nn.ModuleList, shares: Tensor, x: Tensor) -> Tensor:
        noise = torch.rand(()) + random.random() + np.random.rand()  # noqa: NPY002
        return super().mix(edge, shares, x * (1 + 0.1 * noise))


def random_states() -> list[object]:
    return [torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())]  # noqa: NPY002


def test_scores_and_trims_of_nets_that_draw_repeat_and_leave_random_numbers_alone():
    net = Drawing(mixed_four).eval()
    data = torch.randn(64, 3, 8, 8), torch.randint(10, (64,))
    before = random_states()
    whole = Supernet.from_model(net, example(), weights=known)
    first, report = whole.score("gate_taylor", data=data), whole.trim("60%", keep_max=2, data=data).report
    assert random_states() == before
    random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
    second, again = whole.score("gate_taylor", data=data), whole.trim("60%", keep_max=2, data=data).report
    assert first == second
    assert report.scores == again.scores
    assert report.checks == again.checks


class Blurred(Own):
    """A fixed kernel in a buffer."""

    def __init__(self, candidates) -> None:
        super().__init__(candidates)
        self.register_buffer("kernel", torch.full((8, 1, 3, 3), 1 / 9))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.conv2d(self.stem(x), self.kernel, groups=8)
        return self.head(self.mix(self.edges[0], self.share(self.alphas[0]), x).mean((2, 3)))


def test_synflow_of_a_net_with_a_kernel_in_a_buffer():
    net = Blurred(mixed_four).eval()
    scores = Supernet.from_model(net, example(), weights=known).score("synflow")
    assert all(0 < score < 1 for score in scores["edges.0"].values())
    assert net.kernel.dtype == torch.float32


class Words(Tokens):
    """Reads numbers of words."""

    def __init__(self, candidates) -> None:
        super().__init__(candidates)
        self.stem = nn.Embedding(50, 16)


@pytest.mark.parametrize("scorer", ["flops_order", "synflow"])
def test_nets_that_read_integers(scorer):
    words = torch.randint(50, (2, 5), generator=torch.Generator().manual_seed(0))
    whole = Supernet.from_model(Words(TOKENS["alike"]).eval(), words, weights=known)
    trimmed = whole.trim("90%", scorer, keep_max=1)
    assert trimmed.report.after == count_module(trimmed.model, (1, 5)) != whole.counts
    assert trimmed.model(torch.randint(50, (3, 9))).shape == (3, 10)


def test_a_net_that_reads_integers_comes_back(tmp_path):
    words = torch.randint(50, (2, 5), generator=torch.Generator().manual_seed(0))
    whole = Supernet.from_model(Words(TOKENS["alike"]).eval(), words, weights=known)
    small = whole.keep({choice.name: [0] for choice in whole.choices})
    save_supernet(small, tmp_path)
    again = load_supernet(tmp_path, Words(TOKENS["alike"]), weights=known)
    assert torch.equal(again.net(words), small.net(words))
