"""Single paths: what runs, what is drawn, what the regression makes of it, and the scorer that adds them up."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

import nasprune
from nasprune import OpChoice, Supernet
from nasprune.supernet.score.naming import op_scorer
from nasprune.supernet.score.noise import without_noise
from nasprune.supernet.score.paths import draw_paths, on_path, sites
from nasprune.supernet.score.proxies import codes_along, flow_of_ones, flows_along, positive_weights
from nasprune.supernet.score.surrogate import main_effects, normal_scores, ranks
from nasprune.supernet.score.task import ScoringTask
from nasprune.supernet.structure.sample import SampleSupernet, attachments, sample_structure
from tests.supernet.foreign import DartsNet
from tests.supernet.toys import Toy, images

THREE = (OpChoice("a", ("none", "x", "y"), (0,)), OpChoice("b", ("x", "y", "z"), (1,)))


def task_of(net, example, **given):
    return ScoringTask.on_copy(Supernet.from_model(net, example, **given).structure, [], [], seed=0)


class Darts(DartsNet):
    names = ("none", "max", "skip", "sep3", "dil3")


@cache
def darts_structure():
    """Not to be changed."""
    torch.manual_seed(0)
    return Supernet.from_model(
        Darts(4, layers=3),
        torch.randn(2, 3, 8, 8),
        op_names=Darts.names,
        group=lambda edge: f"{'reduce' if edge.cell.reduction else 'normal'}/{edge.index}",
    ).structure


def darts():
    return ScoringTask.on_copy(darts_structure(), [], [], seed=0)


def toy():
    return Supernet.from_model(
        Toy().eval(),
        images(),
        group=lambda place: str(place.index),
        weights=lambda place: place.net.alphas[place.index],
    )


def test_normal_scores_keep_the_order_and_leave_ties():
    found = normal_scores(torch.tensor([3.0, 1.0, 3.0, 0.0, 9.0]))
    assert found.tolist() == pytest.approx([0.2533, -0.5244, 0.2533, -1.2816, 1.2816], abs=1e-4)


def test_every_candidate_is_drawn_equally_often_and_none_never():
    choices = tuple(OpChoice(str(n), ("none", "x", "y", "z"), (n,)) for n in range(8))
    paths = draw_paths(choices, 60, seed=3)
    assert len(paths) == 60
    for choice in choices:
        assert [sum(path[choice.name] == op for path in paths) for op in range(4)] == [0, 20, 20, 20]
    assert paths == draw_paths(choices, 60, seed=3) != draw_paths(choices, 60, seed=4)


def test_few_paths_are_all_given_once():
    paths = draw_paths(THREE, 200, seed=0)
    assert len({tuple(path.items()) for path in paths}) == len(paths) == 6


def test_a_path_is_the_network_of_its_candidates():
    """Against the net with the other candidates taken out, whose mixture is that candidate alone."""
    supernet = toy()
    task = ScoringTask.on_copy(supernet.structure, [], [], seed=0)
    for path in draw_paths(task.choices, 5, seed=1):
        small = supernet.keep({choice.name: [path[choice.name]] for choice in task.choices})
        with torch.no_grad(), task.on_path(path):
            found = task.net(images(6))
        torch.testing.assert_close(found, small.net(images(6)), rtol=1e-5, atol=1e-6)


def test_only_the_drawn_candidates_run_and_only_they_learn():
    task = darts()
    path = draw_paths(task.choices, 3, seed=0)[0]
    with task.on_path(path):  # the first time it is seen what stands for a mixture
        pass
    ran = []
    inside = [
        (op, module) for place in task.structure.mixed for op in place.ops for module in [task.net.get_submodule(op)]
    ]
    handles = [
        child.register_forward_hook(lambda *_, op=op: ran.append(op))
        for op, module in inside
        for child in module.children()
    ]
    with task.on_path(path):
        task.net(torch.randn(2, 3, 8, 8)).sum().backward()
    for handle in handles:
        handle.remove()
    drawn = {task.structure.mixed[number].ops[path[choice.name]] for choice in task.choices for number in choice.places}
    assert set(ran) <= drawn
    taught = {op for op, module in inside if any(p.grad is not None for p in module.parameters())}
    assert taught == {op for op, module in inside if op in drawn and any(True for _ in module.parameters())}


def test_whole_modules_stand_for_their_mixture_where_they_give_nothing_else():
    task = darts()
    path = draw_paths(task.choices, 3, seed=0)[0]
    inputs = torch.randn(2, 3, 8, 8)
    assert {len(site.called) for site in task._sites} == {1}
    with torch.no_grad():
        with task.on_path(path):
            short = task.net(inputs)
        with on_path(sites(task.net, task.structure.mixed, task.choices), path):
            torch.testing.assert_close(task.net(inputs), short, rtol=1e-4, atol=1e-5)


class Doubled(nn.Module):
    """Mixes its candidates and does more: it must not be passed over."""

    def __init__(self):
        super().__init__()
        self.ops = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)])

    def forward(self, x):
        return 2 * sum(0.5 * op(x) for op in self.ops)


def test_modules_that_do_more_are_called_as_they_are():
    net = nn.Sequential(Doubled(), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    task = task_of(net, torch.randn(2, 4, 6, 6))
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad(), task.on_path({task.choices[0].name: 1}):
        torch.testing.assert_close(task.net(x), net[2](net[1](2 * net[0].ops[1](x))))


class Careless(nn.Module):
    """Writes into what its candidates give."""

    def __init__(self):
        super().__init__()
        self.ops = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)])

    def forward(self, x):
        total = torch.zeros_like(x)
        for op in self.ops:
            given = op(x)
            given *= 0.5
            total += given
        return total * 1.0


def test_what_is_written_into_is_worked_out_anew():
    net = nn.Sequential(Careless(), nn.Conv2d(4, 2, 1)).eval()
    task = task_of(net, torch.randn(2, 4, 6, 6))
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad(), task.on_path({task.choices[0].name: 1}):
        torch.testing.assert_close(task.net(x), net[1](net[0].ops[1](x)))


class Alone(nn.Module):
    """Runs one candidate at a time."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return self.first(x)


def test_a_module_that_runs_one_at_a_time_runs_the_drawn_one():
    net = nn.Sequential(Alone(), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    task = task_of(net, torch.randn(2, 4, 6, 6), choices=["0"])
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad(), task.on_path({"0": 1}):
        torch.testing.assert_close(task.net(x), net[2](net[1](net[0].second(x))))
    torch.testing.assert_close(task.net(x), net(x))


def test_effects_are_found_again():
    choices = tuple(OpChoice(str(n), ("none", "x", "y", "z"), (n,)) for n in range(6))
    true = {
        choice.name: [0.0, *torch.rand(3, generator=torch.Generator().manual_seed(n)).tolist()]
        for n, choice in enumerate(choices)
    }
    paths = draw_paths(choices, 100, seed=0)
    values = torch.tensor([sum(true[name][op] for name, op in path.items()) for path in paths])
    found = main_effects(choices, paths, values)
    for name, worths in found.items():
        expected = torch.tensor(true[name][1:]) - min(true[name][1:])
        assert worths[0] == 0
        torch.testing.assert_close(worths[1:].float() * float(values.std(correction=0)), expected, rtol=0.1, atol=0.05)


def test_ranks_share_ties():
    assert ranks([3.0, 1.0, 3.0, 0.0]).tolist() == [2.5, 1.0, 2.5, 0.0]


def test_the_flow_of_a_path_is_the_sum_over_its_weights():
    task = darts()
    paths = draw_paths(task.choices, 4, seed=0)
    by_slopes = []
    for path in paths:
        with positive_weights(task), torch.enable_grad(), task.on_path(path):
            weights = [p for p in task.net.parameters() if p.requires_grad]
            flow = flow_of_ones(task, torch.ones(1, 3, 8, 8, dtype=torch.float64))
            slopes = torch.autograd.grad(flow, weights, allow_unused=True)
            by_slopes.append(
                sum(float((w * s).detach().abs().sum()) for w, s in zip(weights, slopes, strict=True) if s is not None)
            )
    assert flows_along(task, paths) == pytest.approx(by_slopes, rel=1e-5)


def test_noise_is_seen_where_it_is():
    task = ScoringTask.on_copy(sample_structure(SampleSupernet().eval()), [], [], seed=0)
    assert {name: shares.tolist() for name, shares in task.noise().items()} == {
        "edge0": [0, 0, 0, 0],
        "edge1": [0, 0, pytest.approx(1, abs=0.1)],
    }


def test_noise_is_ranked_last():
    structure = sample_structure(SampleSupernet().eval())
    found = op_scorer("paths").score(ScoringTask.on_copy(structure, [], [], seed=0))
    assert found["edge1"].argmin() == 2
    assert found["edge1"][2] < 0 <= found["edge1"][:2].min()


def test_a_little_noise_costs_little():
    noise = {"a": torch.tensor([0.0, 0.1, 1.0])}
    assert without_noise({"a": torch.tensor([0.0, 1.0, 2.0])}, noise)["a"].tolist() == pytest.approx([0, 0.8, -1])


def test_labels_play_no_part():
    structure = sample_structure(SampleSupernet().eval())
    inputs = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    tasks = [
        ScoringTask.on_copy(structure, [], [(inputs, labels)], seed=0) for labels in (torch.zeros(16), torch.ones(16))
    ]
    one, other = (op_scorer("paths").score(task) for task in tasks)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_losses_of_paths_rank_their_operations():
    """A candidate that destroys what comes in is worth less than one that hands it on."""
    torch.manual_seed(0)
    net = nn.Sequential(Fates(), nn.Flatten(), nn.Linear(16, 4)).eval()
    structure = Supernet.from_model(net, torch.randn(4, 1, 4, 4)).structure
    inputs = torch.randn(64, 1, 4, 4)
    labels = net[2](inputs.flatten(1)).argmax(1)
    found = op_scorer("path_loss").score(ScoringTask.on_copy(structure, [], [(inputs, labels)], seed=0))
    (scores,) = found.values()
    assert scores[0] > scores[1] == 0


class Fates(nn.Module):
    def __init__(self):
        super().__init__()
        self.ops = nn.ModuleList([nn.Identity(), nn.Conv2d(1, 1, 3, padding=1)])

    def forward(self, x):
        return sum(0.5 * op(x) for op in self.ops)


def test_what_the_net_was_is_left():
    task = darts()
    before, state = attachments(task.net), {name: value.clone() for name, value in task.net.state_dict().items()}
    op_scorer("paths(paths=6)").score(task)
    assert attachments(task.net) == before
    assert all(torch.equal(value, state[name]) for name, value in task.net.state_dict().items())


def test_a_choice_of_one_is_left_alone():
    supernet = toy()
    first = supernet.choices[0]
    small = supernet.keep({first.name: first.ops[-1:]})
    assert list(small.score("paths(paths=10)")[first.name].values()) == [0.0]


@pytest.mark.parametrize(
    ("work", "count", "images"), [(0, 800, 16), (1e3, 800, 16), (7.8125e6, 400, 16), (1e9, 200, 8)]
)
def test_small_supernets_get_more_paths(monkeypatch, work, count, images):
    """Up to 5e10 FLOPs, between 200 and 800 of them; large ones also fewer images."""

    class EnoughError(Exception):
        pass

    def drawn(choices, number, seed):
        seen.append(number)
        return [{}] * number

    def looked(task, number):
        seen.append(number)
        raise EnoughError

    task, seen = darts(), []
    monkeypatch.setattr(
        type(task), "cost", lambda self, choice: torch.full((len(choice.ops),), work / len(task.choices))
    )
    scorer = op_scorer("paths")
    monkeypatch.setitem(type(scorer).score.__globals__, "draw_paths", drawn)
    monkeypatch.setitem(type(scorer).score.__globals__, "unlabelled_images", looked)
    with pytest.raises(EnoughError):
        scorer.score(task)
    assert seen == [count, images]


@pytest.mark.parametrize("options", ["paths=1", "images=1", "proxies=grasp", "proxies=naswot+naswot"])
def test_options_are_checked(options):
    with pytest.raises(nasprune.InputError, match=r"paths|proxies"):
        op_scorer(f"paths({options})")


def test_the_shares_do_not_matter():
    """Whatever the mixture is, a path is its candidates."""
    structure = sample_structure(SampleSupernet().eval())
    one = op_scorer("paths").score(ScoringTask.on_copy(structure, [], [], seed=0))
    with torch.no_grad():
        for alpha in structure.net.alphas:
            alpha.copy_(3 * torch.randn(len(alpha), generator=torch.Generator().manual_seed(1)))
    other = op_scorer("paths").score(ScoringTask.on_copy(replace(structure), [], [], seed=0))
    assert all(torch.equal(one[name].argsort(), other[name].argsort()) for name in one)


class Listed(nn.ModuleList):
    """A list that the net calls, and that mixes."""

    def forward(self, x, weights):
        return sum(weight * op(x) for weight, op in zip(weights, self, strict=True))


class CallsLists(nn.Module):
    """Two such lists, and a classifier."""

    def __init__(self, flatten=lambda x: x.flatten(1)):
        super().__init__()
        self.edges = nn.ModuleList(
            Listed(nn.Sequential(nn.Conv2d(3, 3, side, padding=side // 2), nn.ReLU()) for side in (1, 3))
            for _ in range(2)
        )
        self.alphas = nn.Parameter(torch.zeros(2, 2))
        self.classifier = nn.Linear(3 * 8 * 8, 2)
        self.flatten = flatten

    def forward(self, x):
        for edge, weights in zip(self.edges, self.alphas.softmax(1), strict=True):
            x = edge(x, weights)
        return self.classifier(self.flatten(x))


def lists(**given):
    torch.manual_seed(0)
    return task_of(CallsLists(**given).eval(), torch.randn(8, 3, 8, 8))


def test_a_list_that_is_called_need_not_mix_what_is_equal():
    task = lists()
    path = dict.fromkeys((choice.name for choice in task.choices), 1)
    with task.on_path(path), torch.no_grad():
        task.net.alphas.fill_(torch.nan)
        assert task.net(task.example).isfinite().all()


def test_a_net_that_wants_its_elements_in_order_is_ranked_like_any_other():
    usual, views = lists(), lists(flatten=lambda x: x.view(len(x), -1))
    for path in draw_paths(usual.choices, 4, seed=0):
        found, wanted = (codes_along(task, [path], task.example) for task in (views, usual))
        assert found == pytest.approx(wanted)
