"""Polishing brings a cut net nearer to the dense one on unseen images, never farther, and touches nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from nasprune.cut.plan import PrunePlan
from nasprune.cut.surgery import build
from nasprune.cut.trial_plans import half_plan
from nasprune.errors import InputError
from nasprune.graph.model import ModelGraph
from nasprune.run import search as story
from nasprune.run.checkpoint import load, save
from nasprune.run.trace import trace
from nasprune.testing import SampleNet
from nasprune.train.nearness import Nearness
from nasprune.train.pace import steps_within
from nasprune.train.polish import PolishStep, polish
from nasprune.train.taps import taps, watched
from tests.nets import EXAMPLE, TinyResNet, images


@dataclass(frozen=True)
class Cut:
    model: nn.Module
    plan: PrunePlan
    graph: ModelGraph


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    torch.manual_seed(0)
    return TinyResNet(8, 2).eval()


@pytest.fixture(scope="module")
def cut(dense: nn.Module) -> Cut:
    graph = trace(dense, EXAMPLE)
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    return Cut(build(dense, graph, plan).eval(), plan, graph)


IMAGES = images(200)[0]
DATA = IMAGES, None
QUICK = {"steps": 24, "batch_size": 16}


def test_it_comes_nearer_and_touches_nothing(dense: nn.Module, cut: Cut) -> None:
    before = {net: {name: value.clone() for name, value in net.state_dict().items()} for net in (dense, cut.model)}
    seen: list[PolishStep] = []
    state = torch.get_rng_state()
    done = polish(cut, dense, DATA, on_step=seen.append, **QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    assert done.after < 0.9 * done.before
    assert 0 < done.kept <= done.steps <= 24
    assert [(step.number, step.of) for step in seen] == [(number, 24) for number in range(3, done.steps + 1, 3)]
    assert seen[-1].best == done.after == min(step.divergence for step in seen)
    for net, values in before.items():
        assert all(torch.equal(value, values[name]) for name, value in net.state_dict().items())
        assert not any(module._forward_hooks for module in net.modules())
        assert all(weight.requires_grad and weight.grad is None for weight in net.parameters())
    assert not done.model.training
    assert all(weight.requires_grad for weight in done.model.parameters())
    assert not any(module._forward_hooks for module in done.model.modules())
    again = polish(cut, dense, DATA, **QUICK)
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), done.model.parameters(), strict=True))


def test_images_of_no_step_decide(dense: nn.Module, cut: Cut) -> None:
    fresh = images(400, seed=5)[0]
    near = Nearness(dense, (), None, speaks=True)
    done = polish(cut, dense, DATA, **QUICK)
    assert near.measure(done.model, [fresh]) < near.measure(cut.model, [fresh])


def test_a_rate_that_destroys_is_lowered_and_what_helps_nothing_is_the_start(dense: nn.Module, cut: Cut) -> None:
    wild = polish(cut, dense, DATA, lr=30.0, **QUICK)
    assert wild.after <= wild.before
    assert "polish: a rate of 30 drove the network away from the dense one; it was lowered" in wild.notes
    lost = polish(cut, dense, DATA, lr=1e30, **QUICK)
    assert (lost.kept, lost.after) == (0, lost.before)
    assert "nothing came nearer to the dense network on held-out images, so the weights are those before" in str(lost)
    assert all(torch.equal(a, b) for a, b in zip(lost.model.parameters(), cut.model.parameters(), strict=True))


def test_a_network_that_gives_what_the_dense_one_gives_is_left_alone(dense: nn.Module) -> None:
    done = polish(copy.deepcopy(dense), dense, DATA, **QUICK)
    assert (done.steps, done.kept) == (0, 0)
    assert "nothing was done" in str(done)
    assert all(torch.equal(a, b) for a, b in zip(done.model.parameters(), dense.parameters(), strict=True))


def test_it_stops_when_asked_and_keeps_the_best(dense: nn.Module, cut: Cut) -> None:
    asked = iter([False] * 4 + [True])
    done = polish(cut, dense, DATA, should_stop=lambda: next(asked), **QUICK)
    assert done.steps == 5
    assert done.after <= done.before


def test_taps_hold_the_channels_that_stay() -> None:
    dense = SampleNet().eval()
    graph = trace(dense, torch.randn(1, 3, 8, 8))
    plan = half_plan(graph, [group.name for group in graph.free_groups], ["second"])
    where = taps(graph, plan, dense)
    assert [tap.path for tap in where] == ["norm", "first", "split", "head"]
    small = build(dense, graph, plan).eval()
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad(), watched(dense, where) as wide, watched(small, where) as narrow:
        dense(x)
        small(x)
    for tap in where:
        assert tap.of_dense(wide[tap.path]).shape == narrow[tap.path].shape
    assert torch.equal(where[0].of_dense(wide["norm"]), narrow["norm"])
    assert narrow["norm"].shape[1] < wide["norm"].shape[1]


def test_a_network_alone_is_compared_by_its_outputs(dense: nn.Module, cut: Cut) -> None:
    done = polish(cut.model, dense, DATA, **QUICK)
    assert done.after < done.before


class Listed(nn.Module):
    """Outputs without a tensor, as of a detector."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.net(x).unbind(0))


def test_features_count_where_outputs_cannot_be_compared(dense: nn.Module) -> None:
    whole = Listed(dense)
    graph = trace(whole, EXAMPLE, "net")
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    done = polish(Cut(build(whole, graph, plan).eval(), plan, graph), whole, DATA, **QUICK)
    assert done.after < done.before
    with pytest.raises(InputError, match="nothing to compare the networks by: their outputs have other shapes"):
        polish(done.model, whole, DATA)


class Asserting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.shape[-1] == 16, "16 wanted")
        return x


def test_a_dense_network_in_double_precision_is_compared_in_its_own(dense: nn.Module, cut: Cut) -> None:
    done = polish(cut, copy.deepcopy(dense).double(), DATA, steps=8, batch_size=16)
    assert done.after <= done.before
    assert {value.dtype for value in done.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 7}, "`steps` must be at least 8, got 7"),
        ({"steps": 2.5}, "`steps` must be a whole number"),
        ({"lr": -1.0}, "`lr` must be above 0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"precision": "half"}, "`precision` must be one of auto, 32-true, bf16-mixed, got the str 'half'"),
        ({"teacher": nn.Linear(2, 2)}, r"the teacher does not take images of shape \(3, 8, 8\)"),
        ({"seed": 0.5}, "`seed` must be a whole number"),
        ({"teacher": Asserting()}, r"the teacher does not take images of shape \(3, 8, 8\): AssertionError: 16 wanted"),
        ({"data": (torch.full((20, 3, 8, 8), torch.nan), None)}, "image 0 holds NaN or infinite values"),
    ],
)
def test_what_cannot_be_used_is_said(dense: nn.Module, cut: Cut, options: dict[str, object], message: str) -> None:
    arguments = {"found": cut, "teacher": dense, "data": DATA, **options}
    with pytest.raises(InputError, match=message):
        polish(**arguments)  # type: ignore[arg-type]


def test_a_search_polishes_and_says_so(dense: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr("nasprune.run.polishing.polish", partial(polish, **QUICK))
    seen: list[PolishStep] = []
    both = [
        story.search(
            dense, EXAMPLE, "60%", data=DATA, evaluator="kl", reconstruct="none", polish=wanted, on_polish=seen.append
        )
        for wanted in (False, True)
    ]
    plain, done = both
    assert done.plan == plain.plan
    assert done.report.settings["polish"] == "yes"
    assert "polish" not in plain.report.settings
    measured = done.report.measured
    assert measured["divergence after polish"] <= measured["divergence before polish"]
    assert seen[-1].best == measured["divergence after polish"]
    assert any(note.startswith("Polished: ") for note in done.report.notes)
    near = Nearness(dense, (), None, speaks=True)
    fresh = images(400, seed=5)[0]
    assert near.measure(done.model, [fresh]) < near.measure(plain.model, [fresh])
    save(done, tmp_path)
    loaded = load(tmp_path, dense)
    with torch.no_grad():
        assert torch.equal(loaded(fresh), done.model(fresh))


def test_a_search_without_data_cannot_polish(dense: nn.Module) -> None:
    with pytest.raises(InputError, match="polishing needs images"):
        story.search(dense, EXAMPLE, "60%", polish=True)


def test_a_net_that_several_processes_train_is_compared_inside(dense, cut, tmp_path):
    """As in every other net: what torch puts around it for several processes has other paths."""
    where = taps(cut.graph, cut.plan, dense)
    near = Nearness(dense, where, None, speaks=True)
    alone = near.loss(cut.model, IMAGES[:8])
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        together = near.loss(nn.parallel.DistributedDataParallel(cut.model), IMAGES[:8])
    finally:
        torch.distributed.destroy_process_group()
    assert where
    assert float(near.loss(cut.model, IMAGES[:8]).detach()) > 0
    torch.testing.assert_close(together, alone)


def test_as_many_steps_are_taken_as_fit_into_the_time(dense, cut, monkeypatch):
    fitting: list[float] = []

    def planned(seconds: float, step: Callable[[], object], check: Callable[[], object], checks: int) -> int:
        step()
        check()
        fitting.append(seconds)
        return 24

    monkeypatch.setattr("nasprune.train.polish.steps_within", planned)
    monkeypatch.setattr("nasprune.train.polish.FEWEST", 20)
    seen: list[PolishStep] = []
    done = polish(cut, dense, DATA, steps=400, time_limit=600, on_step=seen.append)
    assert 0 < fitting[0] <= 600
    assert {step.of for step in seen} == {24}
    assert seen[-1].rate < 0.1 * max(step.rate for step in seen), "the rate falls over the steps that fit"
    same = polish(cut, dense, DATA, steps=24)
    assert all(torch.equal(*pair) for pair in zip(done.model.parameters(), same.model.parameters(), strict=True))


def test_polishing_is_not_begun_where_the_time_is_too_short(dense, cut):
    done = polish(cut, dense, DATA, time_limit=0.01)
    assert (done.steps, done.kept) == (0, 0)
    assert "the time that is left is enough for 0 steps, and fewer than 200 gain nothing" in done.notes[0]
    assert all(torch.equal(*pair) for pair in zip(done.model.parameters(), cut.model.parameters(), strict=True))


def test_it_ends_when_the_time_is_over(dense, cut, monkeypatch):
    monkeypatch.setattr("nasprune.train.polish.steps_within", lambda *_: 10**6)
    done = polish(cut, dense, DATA, steps=10**6, time_limit=3)
    assert done.steps < 10**6
    assert done.after <= done.before


def test_a_search_spends_a_limit_of_time_on_polishing(dense, monkeypatch):
    """By default; trials are made instead of it where they were asked for."""
    given: list[float] = []

    def watched(*arguments, time_limit=None, **options):
        given.append(time_limit)
        return polish(*arguments, **{**options, **QUICK})

    monkeypatch.setattr("nasprune.run.polishing.polish", watched)
    asked = {"data": DATA, "evaluator": "kl", "reconstruct": "none"}
    done = story.search(dense, EXAMPLE, "60%", time_limit=300, **asked)
    assert len(done.trials) == 1
    assert 0 < given.pop() < 300
    assert done.report.settings["polish"] == "in the time that is left"
    story.search(dense, EXAMPLE, "60%", time_limit=300, data=DATA, evaluator="importance")
    assert given.pop() is not None
    for other in ({"trials": 3}, {"polish": False, "trials": 2}, {"controller": "uniform"}):
        plain = story.search(dense, EXAMPLE, "60%", time_limit=300, **asked, **other)
        assert "polish" not in plain.report.settings
    assert not given
    story.search(dense, EXAMPLE, "60%", time_limit=300, polish=True, trials=1, **asked)
    assert given == [None], "trials have the time, and polishing was asked for"
    late = story.search(dense, EXAMPLE, "60%", time_limit=1e-3, **asked)
    assert any("no time was left, since the search alone took" in note for note in late.report.notes)
    assert given == [None]


def test_the_steps_that_fit_leave_room_for_the_checks(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("nasprune.train.pace.time", SimpleNamespace(perf_counter=lambda: now[0]))

    def takes(seconds: float) -> Callable[[], None]:
        def run() -> None:
            now[0] += seconds

        return run

    assert steps_within(100, takes(1.0), takes(2.0), 8) == int((0.9 * 96 - 16) / 1.0)
    assert steps_within(10, takes(1.0), takes(2.0), 8) == 0


def test_the_score_of_a_network_with_zeros_is_that_of_the_zeros(dense):
    result = story.search(dense, EXAMPLE, "20%NNZ", data=DATA, evaluator="kl")
    assert result.report.score < 0
    assert -result.report.score == pytest.approx(result.report.measured["divergence cut"], rel=1e-3)
