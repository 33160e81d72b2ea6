"""Times of candidates: by themselves, on what they read in the net, adding up to the whole net."""

from __future__ import annotations

import pytest
import torch

import nasprune
from nasprune import Supernet
from nasprune.errors import BudgetError, InputError
from nasprune.supernet.find.choices import everything
from nasprune.supernet.price.counting import Counts
from nasprune.supernet.price.limits import Limit, parse_limit
from nasprune.supernet.price.times import measured_times
from nasprune.supernet.report.health import TrimReport
from nasprune.supernet.report.latency import Latency
from tests.supernet.clocks import work
from tests.supernet.find.edges import Net, OneOf, candidates
from tests.supernet.toys import OPS, Toy, images

pytestmark = pytest.mark.usefixtures("one_draw")

SMALL = nasprune.Size(channels=4, layers=1, channels_in=1, resolution=8)


def supernet() -> Supernet:
    net = Toy()
    return Supernet.from_model(
        net,
        images(),
        op_names=OPS,
        group=lambda place: f"cell/{place.index}",
        weights=lambda place: net.alphas[place.index],
    )


def table(whole: Supernet):
    structure = whole.structure
    return measured_times(structure.net, structure.mixed, structure.choices, structure.inputs)


def test_times_add_up_to_the_whole_net_and_like_candidates_are_measured_once(steady):
    whole = supernet()
    state = {name: value.clone() for name, value in whole.net.state_dict().items()}
    found = table(whole)
    assert found.of_kept(whole.choices, everything(whole.choices)) == round(1e6 * work(whole.net, images()))
    conv1, conv3 = found.places[0][2:]
    assert found.places == ((0, 0, conv1, conv3),) * 6
    assert conv3 == 9 * conv1 == 1e6 * work(whole.net.cells[0].edges[0][3], torch.zeros(4, 6, 8, 8))
    assert len([model for model in steady if model is not whole.net]) == 2 * 4
    assert all(torch.equal(value, state[name]) for name, value in whole.net.state_dict().items())
    assert not any("forward" in vars(module) for module in whole.net.modules())


def test_what_candidates_take_alone_is_scaled_to_what_they_take_in_the_net(steady, monkeypatch):
    whole = supernet()
    monkeypatch.setattr(
        "nasprune.cost.latency.measure_latency",
        lambda model, inputs, **options: work(model, inputs) * (1 if model is whole.net else 3),
    )
    found = table(whole)
    assert found.of_kept(whole.choices, everything(whole.choices)) == pytest.approx(1e6 * work(whole.net, images()))


def test_candidates_of_which_one_runs_are_all_measured(steady):
    whole = Supernet.from_model(Net(OneOf(candidates()), OneOf(candidates())), images(), choices=["edges.*"])
    found = table(whole)
    assert all(times[0] == 0 < times[1] < times[2] for times in found.places)


@pytest.mark.parametrize("budget", ["0.4ms", "60% latency", "60%"])
@pytest.mark.parametrize("scorer", ["alpha", "flops_order"])
def test_a_trim_keeps_a_budget_of_time(steady, budget, scorer):
    whole = supernet()
    before = work(whole.net, images())
    trimmed = whole.trim(budget, scorer, count="latency")
    limit = 0.4 if budget == "0.4ms" else 0.6 * before
    found = trimmed.report.latency
    assert work(trimmed.model, images()) == pytest.approx(found.after) == pytest.approx(found.predicted)
    assert limit / 2 < found.after <= limit < found.before == before
    (check,) = (one for one in trimmed.report.checks if one.name == "latency")
    assert check.verdict == "ok"
    assert "batch of 4 on cpu" in check.sentence
    assert trimmed.supernet.structure.cost_of("latency") == pytest.approx(1e6 * found.after)
    assert TrimReport.from_json(trimmed.report.to_json()) == trimmed.report
    assert trimmed.supernet.trim("0.3ms", scorer).report.latency.after <= 0.3


def test_one_network_keeps_a_budget_of_time(steady):
    found = supernet().discretise("40% latency", scorer="flops_order")
    assert work(found.model, images()) == pytest.approx(found.nanoseconds / 1e6)
    assert found.report.latency.after == pytest.approx(found.nanoseconds / 1e6)


def test_a_network_of_a_space_keeps_a_budget_of_time_at_its_own_size(steady):
    space = nasprune.supernet_space("nasbench201")
    whole = Supernet.from_model(space.supernet(SMALL), torch.randn(2, 1, 8, 8), space=space)
    size = nasprune.Size(channels=6, layers=1, channels_in=1, resolution=8)
    largest = work(whole.discretise(scorer="flops_order", size=size).model, torch.zeros(2, 1, 8, 8))
    found = whole.discretise(f"{0.7 * largest}ms", scorer="flops_order", size=size)
    assert found.report.latency.after == pytest.approx(work(found.model, torch.zeros(2, 1, 8, 8)))
    assert 0.3 * largest < found.report.latency.after <= 0.7 * largest
    with pytest.raises(BudgetError, match=r"the cheapest genotype costs .* ms, 0.001 ms are allowed"):
        whole.discretise("1us", scorer="flops_order", size=size)


def test_a_budget_that_nothing_keeps_is_said_in_milliseconds(steady):
    with pytest.raises(BudgetError, match=r"already costs 0\.0\d+ ms, the budget is 0.001 ms"):
        supernet().trim("1us", "alpha")


def test_what_is_built_and_takes_longer_than_allowed_is_warned_of():
    found = Latency(before=9.0, after=5.5, predicted=4.9, batch=2, device="cpu")
    assert found.check(Limit(6_000_000, "latency")).verdict == "ok"
    late = found.check(Limit(5_000_000, "latency"))
    assert late.verdict == "warn"
    assert "more than the budget of 5 ms" in late.sentence


def test_budgets_of_time_are_read():
    whole = Counts(10, 10, 10)
    assert parse_limit("8ms", whole) == Limit(8_000_000, "latency")
    assert parse_limit("0.5 s", whole, "macs") == Limit(500_000_000, "latency")
    assert parse_limit("60% latency", whole, time=1000) == Limit(600, "latency")
    assert parse_limit(Limit(1_234_567, "latency").typed, whole) == Limit(1_234_567, "latency")
    with pytest.raises(BudgetError, match="was not measured"):
        parse_limit("60%", whole, "latency")
    with pytest.raises(BudgetError, match="needs a unit, such as 8ms"):
        parse_limit("8", whole, "latency")
    with pytest.raises(InputError, match="macs, fvcore, params, latency, got 'seconds'"):
        parse_limit("60%", whole, "seconds")


def test_what_is_measured_is_time(monkeypatch):
    monkeypatch.setattr("nasprune.supernet.price.times.SPENT", 0)
    found = table(supernet())
    assert found.base > 0
    assert all(time >= 0 for times in found.places for time in times)
