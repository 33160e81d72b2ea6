"""Runtimes run the network that they are given, and say what keeps them from it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nasprune.common.inputs import Inputs
from nasprune.cost.latency import compare_latency
from nasprune.deploy import onnx, onnxruntime
from nasprune.deploy.runtimes import runtime_of
from nasprune.errors import InputError

X = torch.randn(2, 3, 8, 8)


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()


@pytest.mark.parametrize("name", ["eager", "onnxruntime"])
def test_it_runs_the_network(name: str) -> None:
    runtime, model = runtime_of(name), net()
    if name == "onnxruntime":
        pytest.importorskip("onnxruntime")
    runtime.check(torch.device("cpu"))
    with torch.inference_mode():
        found = runtime.ready(model, Inputs.of(X))(Inputs.of(X))
        expected = model(X)
    assert torch.allclose(torch.as_tensor(found[0] if name == "onnxruntime" else found), expected, atol=1e-5)
    assert compare_latency([model], X, repeats=1, runtime=runtime)[0] > 0


def test_a_network_is_written_once_for_inputs_of_the_same_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    runtime, dense, written = runtime_of("onnxruntime"), net(), []
    write = onnx.write
    monkeypatch.setattr(onnx, "write", lambda *given: written.append(given) or write(*given))
    for _ in range(2):
        compare_latency([dense, net()], X, repeats=1, runtime=runtime)
    assert len(written) == 3
    compare_latency([dense], X[:1], repeats=1, runtime=runtime)
    assert len(written) == 4


class Several(nn.Module):
    """Takes two tensors and gives two."""

    def __init__(self, *, traceable: bool = True) -> None:
        super().__init__()
        self.first, self.traceable = net(), traceable

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if torch.jit.is_tracing() and not self.traceable:
            raise RuntimeError("not to be traced")
        y = self.first(x)
        return y, y.mean() + other.mean()


@pytest.mark.parametrize("traceable", [True, False])
def test_a_trial_gives_what_the_network_gives_and_is_written_by_the_other_exporter_where_one_fails(
    monkeypatch: pytest.MonkeyPatch, traceable: bool
) -> None:
    pytest.importorskip("onnxruntime")
    runtime, model, written = runtime_of("onnxruntime"), Several(traceable=traceable).eval(), []
    write = onnx.write
    monkeypatch.setattr(onnx, "write", lambda *given: written.append(given) or write(*given))
    inputs = Inputs.of((X, X))
    with torch.inference_mode():
        found = runtime.ready(model, inputs, trial=True)(inputs)
        for one, other in zip(found, model(X, X), strict=True):
            assert torch.allclose(torch.as_tensor(one), other, atol=1e-5)
    tried = len(written)
    assert tried == (0 if traceable else 1)
    compare_latency([model], (X, X), repeats=1, runtime=runtime)
    assert len(written) == tried + 1
    compare_latency([model], (X, X), runtime=runtime, enough=lambda times: True)
    assert len(written) == 2 * tried + 1


def test_what_the_older_exporter_prints_of_a_failure_is_not_seen(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")

    class Spectrum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.rfft2(x).abs()

    print("before")
    assert onnxruntime._traced(Spectrum(), Inputs.of(X)) is None
    print("after")
    assert capfd.readouterr().out == "before\nafter\n"


def test_onnxruntime_refuses_what_it_has_no_code_for() -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match=r"onnxruntime cannot run the network.*take --runtime eager"):
        compare_latency([net().double()], X.double(), repeats=1, runtime=runtime_of("onnxruntime"))


def test_onnxruntime_is_timed_on_the_cpu() -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match="the model lies on meta"):
        runtime_of("onnxruntime").check(torch.device("meta"))


def test_a_compiler_that_fails_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(model: nn.Module, **_: object) -> object:
        def run(*_: object) -> None:
            raise RuntimeError("no g++\nmore")

        return run

    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(InputError, match=r"RuntimeError: no g\+\+.*--runtime eager"):
        compare_latency([net()], X, repeats=1, runtime=runtime_of("compile"))


@pytest.mark.slow
def test_a_compiled_network_runs() -> None:
    assert compare_latency([net(), net()], X, repeats=2, runtime=runtime_of("compile"))[0] > 0
