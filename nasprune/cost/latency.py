"""Measured latency: the median time of one forward pass on the device where the model lies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median

import torch
from torch import nn

from nasprune.common.allocation import memory_reused
from nasprune.common.inputs import ExampleInputs, Inputs
from nasprune.common.untouched import untouched
from nasprune.cost.runtimes import EAGER, Runtime
from nasprune.errors import InputError

Enough = Callable[[Sequence[Sequence[float]]], bool]
"""Takes the seconds of every pass so far, a sequence for each model; whether no more passes are needed."""
LEAST = 5
"""Turns of a comparison whose length is not given."""
FEWEST = 3
"""Turns of one whose turns take so long that its time is over after them."""


def measure_latency(
    model: nn.Module, example_inputs: ExampleInputs, *, repeats: int = 30, threads: int | None = None
) -> float:
    """Milliseconds of one forward pass; see `compare_latency`."""
    return compare_latency([model], example_inputs, repeats=repeats, threads=threads)[0]


@memory_reused()
def compare_latency(
    models: Sequence[nn.Module],
    example_inputs: ExampleInputs,
    *,
    repeats: int | None = None,
    threads: int | None = None,
    seconds: float = 1.0,
    runtime: Runtime = EAGER,
    enough: Enough | None = None,
) -> list[float]:
    """Milliseconds of one forward pass of each model, measured in alternation so that drift hits all alike.

    Of the first model it is the median. Of every other one it is that times the median of the ratios to the first
    within each turn: on a busy machine, whose speed changes from turn to turn, these vary ten times less than the ratio
    of the medians. Freed memory stays with the process meanwhile, as allocators made for servers keep it: with glibc's
    own thresholds times of large batches depend on what a process did before.

    Args:
        models: run in eval mode; they are left as they are.
        example_inputs: as they are, moved to each model's device.
        repeats: measured passes of each model, after a tenth as many unmeasured ones, at least 1; by default as many
            as take about `seconds`, from 5 to 50 for each of them.
        threads: of the CPU, or `None` for what torch uses now.
        runtime: what runs them.
        enough: asked after every turn but the first few; where it says so, measuring ends before `seconds` have passed.
            So networks are compared that a search tries: the runtime may take a shorter way with them.

    Raises:
        InputError: the runtime cannot run one of them.
    """
    if repeats is not None and repeats < 1:
        raise InputError(f"repeats must be at least 1, got {repeats}")
    with threads_set(threads), _all_untouched(models), torch.inference_mode():
        runtime.begin()
        given = [Inputs.of(example_inputs, model).to(_device(model)) for model in models]
        ready = partial(runtime.ready, trial=enough is not None)
        calls = [partial(_pass, ready(model, inputs), inputs) for model, inputs in zip(models, given, strict=True)]
        if enough is not None and repeats is None:
            return _milliseconds(_until(calls, enough, seconds))
        if repeats is None:
            once = sum(each[0] for each in _turns(calls, 1))
            repeats = max(LEAST, min(_most(seconds), int(seconds / max(once, 1e-6))))
        return _milliseconds(_turns(calls, repeats))


def _milliseconds(times: Sequence[Sequence[float]]) -> list[float]:
    """Of seconds of each model, in turn."""
    first, *others = times
    own = 1e3 * median(first)
    ratios = ([other / max(one, 1e-9) for one, other in zip(first, each, strict=True)] for each in others)
    return [own, *(own * median(each) for each in ratios)]


def _until(calls: Sequence[Callable[[], float]], enough: Enough, seconds: float) -> list[list[float]]:
    """Seconds of each call, all in turn after one that warms up, until they are enough or `seconds` have passed."""
    times: list[list[float]] = [[] for _ in calls]
    spent = 0.0
    for turn in range(-1, _most(seconds)):
        passed = _turn(calls, turn)
        if turn < 0:
            continue
        for each, elapsed in zip(times, passed, strict=True):
            each.append(elapsed)
        spent += sum(passed)
        over = spent > seconds
        if turn + 1 >= (FEWEST if over else LEAST) and (over or enough(times)):
            break
    return times


def _most(seconds: float) -> int:
    """Turns that are worth while, however short they are."""
    return int(50 * max(seconds, 1.0))


def _turns(calls: Sequence[Callable[[], float]], repeats: int) -> list[list[float]]:
    """Seconds of each call, all in turn, after some runs that warm up."""
    times: list[list[float]] = [[] for _ in calls]
    for repeat in range(-max(2, repeats // 10), repeats):
        passed = _turn(calls, repeat)
        if repeat >= 0:
            for each, elapsed in zip(times, passed, strict=True):
                each.append(elapsed)
    return times


def _turn(calls: Sequence[Callable[[], float]], number: int) -> list[float]:
    """Seconds of each call, every other turn backwards: what happens at regular intervals then hits all alike."""
    if number % 2 == 0:
        return [call() for call in calls]
    return [call() for call in reversed(calls)][::-1]


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
