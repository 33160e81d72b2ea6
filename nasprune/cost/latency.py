"""Measured latency: the median time of one forward pass on the device where the model lies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median

import torch
from torch import nn

from nasprune.common.inputs import ExampleInputs, Inputs
from nasprune.common.untouched import untouched
from nasprune.cost.runtimes import EAGER, Runtime
from nasprune.errors import InputError


def measure_latency(
    model: nn.Module, example_inputs: ExampleInputs, *, repeats: int = 30, threads: int | None = None
) -> float:
    """Milliseconds of one forward pass; see `compare_latency`."""
    return compare_latency([model], example_inputs, repeats=repeats, threads=threads)[0]


def compare_latency(
    models: Sequence[nn.Module],
    example_inputs: ExampleInputs,
    *,
    repeats: int | None = None,
    threads: int | None = None,
    seconds: float = 1.0,
    runtime: Runtime = EAGER,
) -> list[float]:
    """Median milliseconds of one forward pass of each model, measured in alternation so that drift hits all alike.

    Args:
        models: run in eval mode; they are left as they are.
        example_inputs: as they are, moved to each model's device.
        repeats: measured passes of each model, after a tenth as many unmeasured ones, at least 1; by default as many
            as take about `seconds`, from 5 to 50 for each of them.
        threads: of the CPU, or `None` for what torch uses now.
        runtime: what runs them.

    Raises:
        InputError: the runtime cannot run one of them.
    """
    if repeats is not None and repeats < 1:
        raise InputError(f"repeats must be at least 1, got {repeats}")
    with threads_set(threads), _all_untouched(models), torch.inference_mode():
        runtime.begin()
        given = [Inputs.of(example_inputs, model).to(_device(model)) for model in models]
        calls = [
            partial(_pass, runtime.ready(model, inputs), inputs) for model, inputs in zip(models, given, strict=True)
        ]
        if repeats is None:
            once = sum(_medians(calls, 1))
            repeats = max(5, min(int(50 * max(seconds, 1.0)), int(seconds / max(once, 1e-6))))
        return [1e3 * found for found in _medians(calls, repeats)]


def _medians(calls: Sequence[Callable[[], float]], repeats: int) -> list[float]:
    """Median seconds of each call, all in turn, after some runs that warm up."""
    times: list[list[float]] = [[] for _ in calls]
    for repeat in range(-max(2, repeats // 10), repeats):
        for number, call in enumerate(calls):
            elapsed = call()
            if repeat >= 0:
                times[number].append(elapsed)
    return [median(measured) for measured in times]


def _pass(call: Callable[[Inputs], object], inputs: Inputs) -> float:
    on_gpu = inputs.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    own = inputs.clone()
    start = time.perf_counter()
    call(own)
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))


@contextmanager
def threads_set(count: int | None) -> Iterator[None]:
    """Torch computes with so many threads meanwhile; `None` changes nothing."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _all_untouched(models: Sequence[nn.Module]) -> Iterator[None]:
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(untouched(model))
        yield
