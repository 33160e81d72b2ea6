"""Reports of trimmed supernets: checks, rows beside the baselines, pages; ranks against scipy."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from nasprune import OpScorer, Supernet
from nasprune.data import load_data
from nasprune.errors import InputError
from nasprune.supernet.report import comparison
from nasprune.supernet.report.accuracy import accuracies, accuracy, norms_without_averages
from nasprune.supernet.report.comparison import Row
from nasprune.supernet.report.health import Check, TrimReport
from nasprune.supernet.report.pages import cost_rows, kept_rows, lines, markdown, row_cells
from nasprune.supernet.report.ranks import agreement, kendall, spearman
from nasprune.supernet.supernet import _data
from nasprune.supernet.trim.schedules import Stage
from nasprune.supernet.trim.trimming import Data
from tests.supernet.toys import OPS, Toy, images

pytestmark = pytest.mark.usefixtures("few_digits_for_all", "one_draw")

NUMBERS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9)


class Fixed(OpScorer):
    """The same order of candidates everywhere, the first named best."""

    def __init__(self, *order: str) -> None:
        self.order = order

    def score(self, task) -> dict[str, Tensor]:
        values = {op: float(len(self.order) - number) for number, op in enumerate(self.order)}
        return {choice.name: torch.tensor([values[op] for op in choice.ops]) for choice in task.choices}


@cache
def toy(*, known: bool = True) -> Supernet:
    """Not to be changed."""
    net = Toy()
    weights = (lambda place: net.alphas[place.index]) if known else None
    return Supernet.from_model(net, images(), op_names=OPS, group=lambda place: f"cell/{place.index}", weights=weights)


def named(report: TrimReport) -> dict[str, Check]:
    return {check.name: check for check in report.checks}


@pytest.fixture(scope="module")
def trimmed(few_digits_for_all):
    supernet = toy()
    before = {name: value.clone() for name, value in supernet.net.state_dict().items()}
    result = supernet.trim("70%", scorer="perturbation", keep_max=2, data="digits")
    assert all(torch.equal(value, before[name]) for name, value in supernet.net.state_dict().items())
    return supernet, result


@given(NUMBERS)
def test_ranks_agree_with_scipy(pairs):
    one, other = (list(map(float, values)) for values in zip(*pairs, strict=True))
    constant = len(set(one)) == 1 or len(set(other)) == 1
    for own, theirs in ((kendall, stats.kendalltau), (spearman, stats.spearmanr)):
        found = own(one, other)
        assert (found is None) == constant
        if found is not None:
            assert found == pytest.approx(theirs(one, other)[0])


def test_agreement_is_a_mean_over_choices_that_say_something():
    one = {"a": [1.0, 2.0, 3.0], "b": [1.0, 1.0], "c": [1.0, 2.0]}
    other = {"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0], "c": [2.0, 1.0]}
    assert agreement(one, other, kendall) == 0.0
    assert agreement({"b": [1.0, 1.0]}, {"b": [1.0, 2.0]}, kendall) == 0.0


def test_the_report_holds_costs_choices_and_scores(trimmed):
    supernet, result = trimmed
    report = result.report
    assert report.before == supernet.counts
    assert report.after == report.predicted == result.supernet.counts
    assert report.kept == result.choices
    assert set(report.scores) == {choice.name for choice in supernet.choices}
    assert all(set(scores) == set(OPS) for scores in report.scores.values())
    assert report.settings["scorer"] == "perturbation"
    assert report.settings["seed"] == "0"
    assert "FLOPs (fvcore)" in report.budget
    assert report.seconds > 0


def test_the_report_goes_through_json(trimmed):
    report = trimmed[1].report
    assert TrimReport.from_json(report.to_json()) == report
    for text in ("", "[]", "{}", report.to_json().replace('"rows"', '"lines"')):
        with pytest.raises(InputError, match="not a report of a trimmed supernet"):
            TrimReport.from_json(text)


def test_the_baselines_stand_beside_the_chosen_scorer_within_its_budget(trimmed):
    supernet, result = trimmed
    rows = {row.scorer: row for row in result.report.rows}
    assert list(rows) == ["perturbation", "flops_order", "random"]
    chosen = rows["perturbation"]
    assert chosen.overlap == 1
    assert chosen.fvcore == result.report.after.fvcore
    assert chosen.accuracy == pytest.approx(named(result.report)["accuracy after"].value, abs=1e-6)
    assert rows["random"].draws == 100
    for row in rows.values():
        assert row.fvcore <= 0.7 * supernet.counts.fvcore
        assert 0 <= row.overlap <= 1
        assert row.accuracy is not None
        assert row.reestimated is not None


def test_without_a_budget_the_baselines_get_the_flops_that_were_kept():
    report = toy().trim(scorer=Fixed("conv1", "skip", "conv3", "none"), keep_max=2).report
    chosen, flops, chance = report.rows
    assert chosen.scorer == "Fixed"
    assert flops.fvcore <= chosen.fvcore
    assert chance.fvcore <= chosen.fvcore
    assert chosen.accuracy is None


def test_the_same_seed_gives_the_same_report(trimmed, monkeypatch):
    monkeypatch.setattr(comparison, "DRAWS", 100)
    again = toy().trim("70%", scorer="perturbation", keep_max=2, data="digits").report
    assert replace(again, seconds=0) == replace(trimmed[1].report, seconds=0)


@pytest.mark.parametrize(
    ("order", "keep", "share", "verdict"),
    [
        (("skip", "conv3", "conv1", "none"), 1, 1.0, "warn"),
        (("conv3", "skip", "conv1", "none"), 1, 0.0, "ok"),
        (("conv3", "skip", "conv1", "none"), 2, 0.5, "warn"),
        (("conv3", "conv1", "skip", "none"), 3, 1 / 3, "ok"),
    ],
)
def test_cells_of_parameter_free_operations_are_warned_of(order, keep, share, verdict):
    checks = toy().trim(scorer=Fixed(*order), keep_max=keep).report.checks
    (check,) = (check for check in checks if check.name.startswith("parameter-free operations"))
    assert (check.value, check.verdict) == (pytest.approx(share, abs=1e-5), verdict)


def test_an_order_by_size_is_told(trimmed):
    check = named(toy().trim(scorer=Fixed("conv3", "conv1", "skip", "none"), keep_max=2).report)["size bias"]
    assert check.value == pytest.approx(1)
    assert check.verdict == "warn"
    check = named(toy().trim(scorer=Fixed("skip", "conv1", "conv3", "none"), keep_max=2).report)["size bias"]
    assert check.value == pytest.approx(-1)
    assert check.verdict == "ok"
    assert named(toy().trim(scorer="flops_order", keep_max=2).report)["size bias"].verdict == "ok"


def test_agreement_with_the_architecture_weights():
    supernet = toy()
    order = supernet.net.alphas.detach()[:, 1:]
    agrees = {f"cell/{number}": order[number].tolist() for number in range(3)}
    expected = {name: kendall([3.0, 1.0, 2.0], values) for name, values in agrees.items()}
    check = named(supernet.trim(scorer=Fixed("skip", "conv3", "conv1", "none"), keep_max=2).report)[
        "agreement with alpha"
    ]
    assert check.value == pytest.approx(sum(expected.values()) / 3)
    assert ("keep three candidates" in check.sentence) == (check.value < 0.4) == (check.verdict == "warn")
    assert "agreement with alpha" not in named(supernet.trim(scorer="alpha", keep_max=2).report)


def test_even_architecture_weights_are_warned_of():
    supernet = toy()
    even = copy.deepcopy(supernet.net)
    with torch.no_grad():
        even.alphas.zero_()
    name = "entropy of the architecture weights"
    again = Supernet.from_model(
        even, images(), op_names=OPS, group=lambda place: str(place.index), weights=lambda p: even.alphas[p.index]
    )
    check = named(again.trim(scorer="flops_order", keep_max=2).report)[name]
    assert (check.value, check.verdict) == (pytest.approx(1), "warn")
    sure = named(supernet.trim(scorer="flops_order", keep_max=2).report)[name]
    assert sure.verdict == "ok"
    entropy = (
        torch.distributions.Categorical(logits=supernet.net.alphas.detach()).entropy().mean() / torch.tensor(4).log()
    )
    assert sure.value == pytest.approx(float(entropy), abs=1e-5)


def test_accuracies_are_those_of_the_nets(trimmed):
    supernet, again = trimmed
    result = supernet.trim(scorer="flops_order", keep_max=2, data="digits", re_estimate=False)
    checks, data = named(result.report), load_data("digits").validation
    for name, net in (("accuracy before", supernet.net), ("accuracy after", result.model)):
        net = copy.deepcopy(net).eval()
        with torch.no_grad():
            right = (net(torch.stack([x for x, _ in data])).argmax(1) == torch.tensor([y for _, y in data])).float()
        assert checks[name].value == pytest.approx(float(right.mean()), abs=1e-5)
        assert f"{name}, re-estimated" in checks
    assert any("statistics re-estimated on calibration images" in note for note in again.report.notes)
    assert not any("statistics re-estimated on" in note for note in result.report.notes)


def test_the_result_has_batch_norm_statistics_of_its_own():
    supernet = toy()
    kept, own = (
        supernet.trim(scorer="flops_order", keep_max=2, data="digits", re_estimate=yes) for yes in (False, True)
    )
    first, second = kept.model.state_dict(), own.model.state_dict()
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert all("running" in name or "tracked" in name for name in moved)
    names = {name for name, _ in own.model.named_buffers() if "running" in name}
    assert moved >= names if names else not moved


def test_norms_without_averages_are_noted_and_left_alone():
    net = Toy()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
    supernet = Supernet.from_model(net, images(), op_names=OPS, group=lambda place: f"cell/{place.index}")
    assert norms_without_averages(net) == (12, 12)
    plain, again = accuracies(supernet.structure, _data(load_data("digits")), 0)
    assert plain == again
    report = supernet.trim(scorer="flops_order", keep_max=3, data="digits").report
    assert any("batch norms keep no running statistics" in note for note in report.notes)


def test_noise_is_drawn_by_the_seed():
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.randn(len(x), 10)

    batches = [(torch.zeros(64, 1), torch.arange(64) % 10)]
    state = torch.get_rng_state()
    found = [accuracy(Noisy(), batches, torch.device("cpu"), seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert torch.equal(state, torch.get_rng_state())


def test_what_cannot_be_known_is_a_note():
    report = toy(known=False).trim(scorer="flops_order", keep_max=2).report
    assert any("no accuracy is measured" in note for note in report.notes)
    assert "accuracy before" not in named(report)


def test_the_page_and_the_lines_tell_it_all(trimmed):
    report = trimmed[1].report
    page = markdown(report)
    for part in (
        "# Supernet trimmed to",
        "flops_order",
        "random (mean of 100)",
        "## Checks",
        "`cell/0`",
        "perturbation",
    ):
        assert part in page
    assert all(check.sentence in page for check in report.checks)
    assert report.standing is not None
    assert len(lines(report)) == 2 + len(report.warnings) + len(report.notes)
    assert len(cost_rows(report)) == 3
    assert {name for name, _, _ in kept_rows(report)} == {f"`{name}`" for name in report.scores}
    bare = Row("random", 1, 0.5, 6, 1000, 900)
    assert row_cells(bare)[-2:] == ("–", "–")
    nothing = replace(report, rows=(), checks=(), notes=(), budget="none")
    assert "Warnings" not in markdown(nothing)


def test_rows_compare_the_same_weights_where_stages_train():
    report = toy().trim(schedule="progressive(stages=[3, 2], epochs=1)", scorer="flops_order", data="digits").report
    assert any("before any training between stages" in note for note in report.notes)
    assert Stage(epochs=1).epochs == 1
    assert Data().validation == ()
