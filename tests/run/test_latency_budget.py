"""Budgets of latency, on a device whose times are made up: the promise is kept by what is measured, not predicted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import Node

import nasprune
from nasprune.cost.flops import measure
from nasprune.cost.runtimes import Runtime
from nasprune.cost.timed_layers import Layer
from nasprune.cost.times import Fit
from nasprune.cut.compare import Match
from nasprune.cut.verify import Proven, prove
from nasprune.errors import BudgetError, InputError
from nasprune.graph.model import ModelGraph
from nasprune.run import fitting, rounds, timing
from nasprune.run import stopwatch as watching
from nasprune.run.search import search
from nasprune.run.stage import PART
from tests.nets import EXAMPLE, TinyResNet, images

Device = Callable[[Callable[[int], float]], list[nn.Module]]


def net() -> nn.Module:
    return TinyResNet(depth=3)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Device:
    """A device on which a network takes so many milliseconds by its FLOPs, and layers what their weights say."""

    def of(milliseconds: Callable[[int], float]) -> list[nn.Module]:
        seen: list[nn.Module] = []

        def latency(models: Sequence[nn.Module], inputs: Any, **_: object) -> list[float]:
            seen.extend(models)
            return [milliseconds(measure(model, EXAMPLE).flops) for model in models]

        monkeypatch.setattr(watching, "compare_latency", latency)
        return seen

    def layer(one: Layer, device: torch.device, runtime: Runtime) -> Fit:
        return Fit(1000.0, 0.0, 0.0, float(torch.tensor(one.weight).prod() * one.shape[-1] ** 2))

    monkeypatch.setenv("NASPRUNE_CACHE", str(tmp_path / "cache"))

    def clock(model: nn.Module, graph: ModelGraph, repeats: int) -> dict[Node, float]:
        return {node: 1e-6 for node in graph.program.live if node.op == "call_function"}

    monkeypatch.setattr("nasprune.cost.times.measured", layer)
    monkeypatch.setattr("nasprune.cost.times.call_seconds", clock)
    return of


@pytest.mark.parametrize("budget", ["60% latency", "6ms"])
@pytest.mark.parametrize("power", [1.0, 0.6])
def test_what_is_measured_keeps_the_promise(device: Device, budget: str, power: float) -> None:
    """Time falls as FLOPs do, or far slower, which predictions do not know."""
    model = net()
    dense = measure(model, EXAMPLE).flops
    device(lambda flops: 10 * (flops / dense) ** power)
    result = search(model, EXAMPLE, budget, trials=20)
    measured = result.report.measured
    assert measured["latency_ms dense"] == pytest.approx(10)
    assert 0.95 * 6 <= measured["latency_ms cut"] <= 6
    assert measured["latency_ms cut"] == pytest.approx(10 * (measure(result.model, EXAMPLE).flops / dense) ** power)
    asked = "60%" if "%" in budget else "6 ms"
    assert any(note.startswith(f"Of the latency {asked} were asked for") for note in result.report.notes)
    assert {"timing layers", "measuring latency"} <= {cost.phase for cost in result.report.phases}
    assert result.report.proof.ok


def test_a_promise_that_cannot_be_kept_is_said(device: Device) -> None:
    device(lambda flops: 10.0)  # whatever is cut
    result = search(net(), EXAMPLE, "9.5ms", trials=2)
    assert any("No network of the search was measured within it" in note for note in result.report.notes)


def test_a_network_far_below_the_promise_is_said(device: Device) -> None:
    model = net()
    dense = measure(model, EXAMPLE).flops
    device(lambda flops: 10.0 if flops == dense else 2.0)
    result = search(model, EXAMPLE, "60% latency", trials=2)
    assert any("That is 67% less than was allowed" in note for note in result.report.notes)


def test_other_limits_hold_beside_it(device: Device) -> None:
    model = net()
    dense = measure(model, EXAMPLE)
    device(lambda flops: 10 * flops / dense.flops)
    result = search(model, EXAMPLE, "90% latency, 50%Params", trials=20)
    assert result.report.cut.params <= dense.params // 2
    assert result.report.measured["latency_ms cut"] <= 9


def test_a_run_goes_on_with_the_times_that_it_measured(device: Device, tmp_path: Path) -> None:
    model = net()
    dense = measure(model, EXAMPLE).flops
    device(lambda flops: 10 * (flops / dense) ** 0.8)
    first = search(model, EXAMPLE, "60% latency", trials=6, out=tmp_path / "run")
    record = (tmp_path / "run" / "trials.jsonl").read_bytes()
    device(lambda flops: 13 * (flops / dense) ** 0.8)  # a slower day
    again = search(model, EXAMPLE, "60% latency", trials=6, out=tmp_path / "run")
    assert again.plan == first.plan
    assert (tmp_path / "run" / "trials.jsonl").read_bytes() == record
    (tmp_path / "run" / "times.json").write_text("{}")
    with pytest.raises(InputError, match=r"times.json.*dense"):
        search(model, EXAMPLE, "60% latency", trials=6, out=tmp_path / "run")


def test_a_finished_run_that_is_repeated_keeps_what_it_measured(device: Device, tmp_path: Path) -> None:
    model = net()
    dense = measure(model, EXAMPLE).flops
    device(lambda flops: 10 * (flops / dense) ** 0.8)
    first = search(model, EXAMPLE, "60% latency", trials=6, out=tmp_path / "run")
    seen = device(lambda flops: 13 * (flops / dense) ** 0.5)  # other times altogether
    again = search(model, EXAMPLE, "60% latency", trials=6, out=tmp_path / "run")
    assert not seen
    assert again.plan == first.plan
    assert again.report.measured == first.report.measured


def test_the_times_of_another_network_that_lie_in_the_folder_are_not_gone_on_with(
    device: Device, tmp_path: Path
) -> None:
    model = net()
    dense = measure(model, EXAMPLE).flops
    device(lambda flops: 10 * flops / dense)
    search(TinyResNet(depth=2), EXAMPLE, "60% latency", trials=2, out=tmp_path / "killed")
    (tmp_path / "run").mkdir()
    other = (tmp_path / "killed" / "times.json").read_text()
    (tmp_path / "run" / "times.json").write_text(other)
    found = search(model, EXAMPLE, "60% latency", trials=2, out=tmp_path / "run")
    assert found.plan == search(model, EXAMPLE, "60% latency", trials=2).plan
    assert json.loads((tmp_path / "run" / "times.json").read_text())["what"] != json.loads(other)["what"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the slow parts of a search are called."""
    counted: Counter[str] = Counter()

    def count(where: Any, name: str) -> None:
        inner = getattr(where, name)
        monkeypatch.setattr(where, name, lambda *given, **named: counted.update([name]) or inner(*given, **named))

    for where, name in (
        (rounds, "prove"),
        (fitting, "refit"),
        (fitting, "reconstruct"),
        (fitting, "targets_of"),
        (fitting, "damages"),
        (fitting.CandidateRefit, "__call__"),
        (timing, "explored"),
    ):
        count(where, name)
    return counted


@pytest.mark.parametrize("trials", [1, 16])
def test_rounds_of_latency_neither_refit_nor_prove(device: Device, calls: Counter[str], trials: int) -> None:
    """However many networks are measured, a search within a latency refits and proves as one within FLOPs does."""
    model, data = net(), images(80)
    dense = measure(model, EXAMPLE).flops
    search(model, EXAMPLE, "60%", data=data, trials=trials, allow_chance=True)
    within_flops = calls.copy()
    calls.clear()
    seen = device(lambda flops: 10 * (flops / dense) ** 0.6)
    result = search(model, EXAMPLE, "60% latency", data=data, trials=trials, allow_chance=True)
    assert 5.7 <= result.report.measured["latency_ms cut"] <= 6
    assert len(seen) >= 2 * 2  # each with the dense one
    rounds_of = calls.pop("explored")
    assert calls["prove"] == calls["reconstruct"] == calls["damages"] == 1
    assert calls["targets_of"] == within_flops["targets_of"]
    assert rounds_of == 1 or trials > 1
    most = within_flops["refit"] + (rounds_of - 1) * (1 + round(trials * PART))
    assert calls["refit"] <= most


def test_a_budget_without_data_is_proved_once(device: Device, calls: Counter[str]) -> None:
    model = net()
    dense = measure(model, EXAMPLE).flops
    device(lambda flops: 10 * (flops / dense) ** 0.6)
    search(model, EXAMPLE, "60% latency", trials=20)
    assert calls["explored"] > 1
    assert calls["prove"] == 1


def test_a_round_that_is_a_little_off_is_gone_on_from_with_few_trials(device: Device, tmp_path: Path) -> None:
    model = net()
    dense = measure(model, EXAMPLE).flops
    device(lambda flops: 10 * (flops / dense) ** 0.85)
    result = search(model, EXAMPLE, "60% latency", trials=40, out=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    begun = [number for number, line in enumerate(lines) if "round" in line]
    assert [begun[1] - begun[0] - 1, len(lines) - begun[1] - 1] == [40, 5]
    assert result.report.trials == 45
    assert [trial.index for trial in result.trials] == list(range(45))
    assert 5.7 <= result.report.measured["latency_ms cut"] <= 6
    again = search(model, EXAMPLE, "60% latency", trials=40, out=tmp_path)
    assert again.plan == result.plan


def test_what_a_proof_freezes_begins_the_rounds_anew(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    dense = measure(model, EXAMPLE).flops
    device(lambda flops: 10 * (flops / dense) ** 0.8)
    frozen: list[str] = []

    def proving(*given: Any) -> Proven:
        proven = prove(*given)
        if frozen:
            return proven
        frozen.append(min(proven.plan.keep))
        return replace(proven, proof=replace(proven.proof, frozen={frozen[0]: "a test says so"}))

    monkeypatch.setattr(rounds, "prove", proving)
    result = search(model, EXAMPLE, "60% latency", trials=20)
    assert frozen[0] not in result.plan.keep
    assert 5.7 <= result.report.measured["latency_ms cut"] <= 6


def test_a_cut_that_does_not_run_is_left_to_its_proof(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = device(lambda flops: 10.0)
    failed = Match(float("inf"), torch.float64, "a test says so")
    monkeypatch.setattr(timing, "runs", lambda *given: (nn.Identity(), failed))
    result = search(net(), EXAMPLE, "60% latency", trials=2)
    assert result.report.proof.ok
    assert len(seen) == 2, "dense and cut, for the report"
    assert not any(note.startswith("Of the latency") for note in result.report.notes)


def test_the_table_is_measured_once(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    dense = measure(model, EXAMPLE).flops
    device(lambda flops: 10 * flops / dense)
    first = search(model, EXAMPLE, "60% latency", trials=5)

    def never(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("nasprune.cost.times.measured", never)
    monkeypatch.setattr("nasprune.cost.times.call_seconds", never)
    assert search(model, EXAMPLE, "60% latency", trials=5).plan == first.plan


def test_a_search_keeps_what_it_learned(device: Device, tmp_path: Path) -> None:
    model = net()
    dense = measure(model, EXAMPLE).flops
    device(lambda flops: 10 * (flops / dense) ** 1.5)
    search(model, EXAMPLE, "60% latency", trials=5)
    kept = json.loads((tmp_path / "cache" / "times.json").read_text())
    (learned,) = (value for key, nets in kept.items() if key.startswith("networks: ") for value in nets.values())
    assert learned[0] > 1.2


def test_items_run_at_once(device: Device) -> None:
    seen: list[tuple[int, ...]] = []
    model = net()
    model.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    inputs = watching.batched(nasprune.Inputs.of(EXAMPLE), 4)
    assert [tuple(tensor.shape) for tensor in inputs.tensors] == [(4, *EXAMPLE.shape[1:])]
    with pytest.raises(InputError, match="first axis counts them"):
        watching.batched(nasprune.Inputs.of(torch.randn(3, 8)), 4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch": 0}, InputError, "batch"),
        ({"runtime": "tensorrt"}, InputError, "runtime 'tensorrt'.*compile, eager, onnxruntime"),
        ({"runtime": 3}, InputError, "runtime"),
        ({"threads": 0}, InputError, "threads"),
        ({"threads": "two"}, InputError, "threads"),
        ({"budget": "60% latency, 8ms"}, BudgetError, "limits seconds twice"),
        ({"budget": "0.001% latency"}, BudgetError, "cannot be met"),
    ],
)
def test_bad_arguments_are_refused(
    device: Device, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    device(lambda flops: 10.0)
    with pytest.raises(error, match=message):
        search(net(), EXAMPLE, **{"budget": "60% latency", "trials": 2, **options})


def test_the_runtime_that_is_asked_for_is_what_is_measured(
    device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    model = net()
    dense = measure(model, EXAMPLE).flops
    asked: list[str] = []

    def latency(models: Sequence[nn.Module], inputs: Any, *, runtime: Runtime, **_: object) -> list[float]:
        asked.append(runtime.name)
        return [10 * measure(one, EXAMPLE).flops / dense for one in models]

    monkeypatch.setattr(watching, "compare_latency", latency)
    result = search(model, EXAMPLE, "60% latency", trials=5, runtime="onnxruntime", threads=1)
    assert set(asked) == {"onnxruntime"}
    assert any("measured in turn by onnxruntime" in note for note in result.report.notes)
    assert "latency at batch 1, 1 thread, onnxruntime" in str(result)
    assert "onnxruntime" in (tmp_path / "cache" / "times.json").read_text()


@pytest.mark.parametrize(("budget", "typed"), [("0.3% latency", "0.3% of latency"), ("30us", "0.03 ms")])
def test_a_budget_out_of_reach_is_refused_by_what_the_smallest_network_takes(
    device: Device, calls: Counter[str], tmp_path: Path, budget: str, typed: str
) -> None:
    """It takes a tenth of what the dense one takes, which no prediction knew; nothing is explored before."""
    model = net()
    dense = measure(model, EXAMPLE).flops
    device(lambda flops: 10 * max(flops / dense, 0.1))
    least = r"1 ms, 10\.0% of the dense network's 10 ms, as measured"
    with pytest.raises(BudgetError, match=rf"^the budget of {typed} cannot be met: the least reachable is {least}"):
        search(model, EXAMPLE, budget, trials=2, out=tmp_path / "run")
    assert not calls["explored"]
    assert not list(tmp_path.glob("run/*"))


def test_an_aim_that_is_corrected_out_of_reach_is_refused_as_well(device: Device, tmp_path: Path) -> None:
    model = net()
    dense = measure(model, EXAMPLE).flops
    device(lambda flops: 10 * max(flops / dense, 0.4))
    with pytest.raises(BudgetError, match=r"^the budget of 1.2% of latency cannot be met: .* 40\.0% of the dense"):
        search(model, EXAMPLE, "1.2% latency", trials=2, out=tmp_path / "run")
    assert not list(tmp_path.glob("run/*"))


def test_a_correction_of_before_refuses_nothing_that_can_be_reached(device: Device) -> None:
    """Earlier, unsteady times said that networks of this kind are slow, so that less is aimed at than there is."""
    model = net()
    dense = measure(model, EXAMPLE).flops
    device(lambda flops: 10 * (flops / dense) ** 0.5)
    search(model, EXAMPLE, "60% latency", trials=2)
    device(lambda flops: 10 * flops / dense)
    result = search(model, EXAMPLE, "1% latency", trials=2)
    assert 0 < result.report.measured["latency_ms cut"] <= 0.1


@pytest.mark.parametrize(
    ("budget", "reason"),
    [("90% latency, 40%", "Another limit of the budget decides."), ("20ms", "Nothing had to be cut for that.")],
)
def test_what_another_limit_holds_back_is_tried_once(
    device: Device, calls: Counter[str], budget: str, reason: str
) -> None:
    model = net()
    dense = measure(model, EXAMPLE).flops
    device(lambda flops: 10 * flops / dense)
    result = search(model, EXAMPLE, budget, trials=20)
    assert calls["explored"] == 1
    (note,) = (note for note in result.report.notes if note.startswith("Of the latency"))
    assert reason in note
    assert "unsteady" not in note


def test_a_machine_that_was_busy_is_told_by_the_dense_network(device: Device, tmp_path: Path) -> None:
    model = net()
    dense = measure(model, EXAMPLE).flops
    device(lambda flops: 10 * flops / dense)
    search(model, EXAMPLE, "6ms", trials=2, out=tmp_path / "run")
    clocked = json.loads((tmp_path / "run" / "times.json").read_text())
    assert clocked["dense"] == pytest.approx(0.01)
    (tmp_path / "run" / "times.json").write_text(json.dumps(clocked | {"known": {}}))
    device(lambda flops: 36 * flops / dense)
    result = search(model, EXAMPLE, "6ms", trials=2, out=tmp_path / "run")
    assert any("The dense network took 3.6 times as long as its layers when" in note for note in result.report.notes)


def test_a_runtime_that_is_not_installed_says_what_to_type(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device(lambda flops: 10.0)
    monkeypatch.setattr("nasprune.deploy.onnx.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'nasprune\[onnx\]'"):
        search(net(), EXAMPLE, "60% latency", trials=2, runtime="onnxruntime")


def test_only_a_search_of_widths_and_blocks_takes_it() -> None:
    with pytest.raises(BudgetError, match="which only a search of widths and blocks can hold"):
        nasprune.pruner(net(), EXAMPLE, "8ms", steps=10)


def test_a_share_is_that_of_the_dense_network_in_the_same_breath(device: Device) -> None:
    """The machine slows down by half while the search goes on."""
    model = net()
    dense = measure(model, EXAMPLE).flops
    slow = [1.0]

    def milliseconds(flops: int) -> float:
        slow[0] += 0.1
        return 10 * round(slow[0]) * flops / dense

    device(milliseconds)
    result = search(model, EXAMPLE, "60% latency", trials=20)
    assert 0.5 < measure(result.model, EXAMPLE).flops / dense <= 0.66


def test_a_report_measures_latency_as_asked_where_the_budget_does_not_limit_it(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    asked: list[tuple[int, str, int | None]] = []

    def latency(
        models: Sequence[nn.Module], inputs: Any, *, runtime: Runtime, threads: int | None, **_: object
    ) -> list[float]:
        asked.append((len(inputs.tensors[0]), runtime.name, threads))
        return [2.0, 1.0]

    monkeypatch.setattr(watching, "compare_latency", latency)
    result = search(net(), EXAMPLE, "60%", trials=2, runtime="onnxruntime", threads=1, batch=4)
    assert asked == [(4, "onnxruntime", 1)]
    assert "latency at batch 4, 1 thread, onnxruntime" in str(result)
    assert result.report.measured["latency_ms cut"] == 1.0
    assert search(net(), EXAMPLE, "60%", trials=2).report.latency_label == "latency at batch 1"


def test_a_runtime_that_refuses_the_cut_network_costs_no_result(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")

    def latency(models: Sequence[nn.Module], inputs: Any, *, runtime: Runtime, **_: object) -> list[float]:
        if runtime.name != "eager":
            raise InputError("no such operator")
        return [2.0, 1.0]

    monkeypatch.setattr(watching, "compare_latency", latency)
    result = search(net(), EXAMPLE, "60%", trials=2, runtime="onnxruntime")
    assert "Latencies are those of PyTorch, since onnxruntime failed: no such operator" in result.report.notes
