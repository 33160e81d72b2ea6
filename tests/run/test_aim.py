"""The aim of a search within a latency: how what was measured moves it, when measuring ends, what is learned."""

from __future__ import annotations

from math import log
from pathlib import Path

import pytest
from torch import nn

from nasprune.cost.budget import parse_budget
from nasprune.cost.time_cache import keep_bend, keep_times, known_bend, known_times
from nasprune.cost.times import Fit, Table, Times
from nasprune.errors import InputError
from nasprune.run.aim import Clocked, LatencyAim, Measured


def aim_at_60(cut: float = 1.0) -> LatencyAim:
    """60 % of a dense network's second. cut: seconds that every cut network takes."""
    return LatencyAim(parse_budget("60% latency", latency=True), Clocked(1.0, Times({}, {})), lambda *_: (1.0, cut))


def test_measuring_ends_where_it_is_clear_on_which_side_of_the_promise_a_network_is() -> None:
    aim = aim_at_60()

    def enough(low: float, high: float) -> bool:
        ratios = [low, high] * 3 + [(low + high) / 2]
        return aim._decided([[1.0] * 7, [0.6 * ratio for ratio in ratios]])

    assert enough(0.96, 0.99)
    assert enough(1.04, 1.06)
    assert enough(0.99, 1.01)  # on either side, but near enough
    assert not enough(0.93, 0.98)
    assert not enough(1.01, 1.2)
    assert not aim._decided([[1.0] * 5, [0.7] * 5])  # too few


def test_of_unsteady_times_the_aim_lies_between() -> None:
    aim = aim_at_60()
    first = aim.seconds
    assert not aim.reached(Measured(1.0, 0.66, 0.0))
    second = aim.seconds
    assert second == pytest.approx(first * 0.975 / 1.1)
    assert not aim.reached(Measured(1.0, 0.54, 0.0))
    assert second < aim.seconds < first
    assert not aim.reached(Measured(1.0, 0.66, 0.0))  # slower with less
    assert second < aim.seconds < first
    assert aim.reached(Measured(1.0, 0.66, 0.0))  # the last try
    aim.begin(0)
    before = aim.seconds
    assert not aim.reached(Measured(1.0, 0.66, 0.0))
    assert aim.seconds == pytest.approx(before * 0.975 / 1.1)


@pytest.mark.parametrize(("used", "right"), [(0.85, False), (0.93, True), (0.975, True), (1.03, True), (1.15, False)])
def test_what_comes_before_the_search_corrects_the_aim_and_is_measured_again_where_it_was_far_off(
    used: float, right: bool
) -> None:
    aim = aim_at_60()
    before = aim.seconds
    assert aim.sighted(Measured(1.0, 0.6 * used, 0.0)) == right
    assert aim.seconds == pytest.approx(before if used == 0.975 else before * 0.975 / used)


def test_a_network_of_which_nothing_is_cut_takes_what_the_dense_one_takes() -> None:
    aim = aim_at_60(0.3)
    assert aim.measured("whole", 1.0, nn.Identity, whole=True) == Measured(1.0, 1.0, 1.0)
    assert aim.measured("cut", 0.5, nn.Identity) == Measured(1.0, 0.3, 0.5)


def test_an_aim_starts_where_the_one_before_ended() -> None:
    budget, told = parse_budget("60% latency", latency=True), list[float]()
    first = LatencyAim(budget, Clocked(1.0, Times({}, {})), lambda *_: (1.0, 1.0), learned=told.append)
    assert first.seconds == pytest.approx(0.585)
    assert not first.reached(Measured(1.0, 0.5, 0.585))
    assert not told
    assert first.reached(Measured(2.0, 1.17, 0.7))
    assert told == [pytest.approx(log(0.585) / log(0.7))]
    again = LatencyAim(budget, Clocked(1.0, Times({}, {}), told[0]), lambda *_: (1.0, 1.0))
    assert again.seconds == pytest.approx(0.7)
    assert Clocked(2.0, Times({}, {}), told[0]).aimed(3.0) == 3.0  # more than the dense network takes


@pytest.mark.parametrize("shares", [(0.99, 0.7), (0.7, 0.97), (0.0, 0.5)])
def test_what_says_nothing_of_a_network_is_not_learned(shares: tuple[float, float]) -> None:
    told: list[float] = []
    aim = LatencyAim(
        parse_budget("98% latency", latency=True),
        Clocked(1.0, Times({}, {}), 1.1),
        lambda *_: (1.0, 1.0),
        learned=told.append,
    )
    for _ in range(4):
        aim.reached(Measured(1.0, shares[1], shares[0]))
    assert set(told) == {1.1}


def test_what_was_learned_is_kept_with_its_device_and_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASPRUNE_CACHE", str(tmp_path))
    assert known_bend("cpu", "net") == 1.0
    keep_bend("cpu", "net", 1.25)
    keep_times("cpu", Table({"layer": Fit(1.0, 2.0, 3.0, 4.0)}, {"call": 5.0}))
    assert (known_bend("cpu", "net"), known_bend("cpu", "other"), known_bend("gpu", "net")) == (1.25, 1.0, 1.0)
    assert known_times("cpu") == Table({"layer": Fit(1.0, 2.0, 3.0, 4.0)}, {"call": 5.0})
    for damaged in (0.0, 1e9):
        keep_bend("cpu", "net", damaged)
        assert known_bend("cpu", "net") == 1.0


@pytest.mark.parametrize("bend", [0.0, 1e9, float("nan")])
def test_a_bend_that_cannot_be_is_refused(bend: float) -> None:
    with pytest.raises(InputError, match=r"`bend` must be from 0\.5 to 2\.0"):
        Clocked(1.0, Times({}, {}), bend)
