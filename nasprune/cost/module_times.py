"""Where the time of networks goes: measured at their layers, in runs of PyTorch operator by operator."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import nn

from nasprune.common.allocation import memory_reused
from nasprune.common.calls import removed_after
from nasprune.common.inputs import ExampleInputs, Inputs
from nasprune.common.untouched import untouched

SECONDS = 0.5
FEWEST, MOST = 3, 15
"""Turns, however long or short they are."""
FINE = time.get_clock_info("thread_time").resolution < 1e-5


@memory_reused()
def module_milliseconds(
    models: Sequence[nn.Module], example_inputs: ExampleInputs, seconds: float = SECONDS
) -> list[Mapping[str, float]]:
    """For each model: path of each module that holds no others -> median milliseconds of its calls in one run, summed.

    The models run in turn, every other turn backwards, so that a machine that is busy for a while is so for all alike;
    the first turn warms up. On a single thread of the CPU its own time counts, without that of other programs, since
    layers are shorter than what one of these takes at once. What no such module runs, such as an addition, is in none.

    models: left as they are. seconds: that all turns take together, unless they are fewer than 3 then.
    """
    with ExitStack() as stack, torch.inference_mode():
        for model in models:
            stack.enter_context(untouched(model))
        watched = [_Watched.of(model, example_inputs) for model in models]
        for each in watched:
            stack.enter_context(removed_after(each.hooked()))
        turn, began = 0, time.perf_counter()
        while turn <= FEWEST or (turn <= MOST and (time.perf_counter() - began) * (turn + 1) / turn < seconds):
            for each in watched[:: 1 if turn % 2 else -1]:
                each.run()
            turn += 1
    return [each.medians() for each in watched]


@dataclass
class _Watched:
    """A model whose layers say when they start and end. runs: seconds of each layer, one mapping a run."""

    model: nn.Module
    inputs: Inputs
    device: torch.device
    runs: list[dict[str, float]] = field(default_factory=list)
    started: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, example_inputs: ExampleInputs) -> _Watched:
        device = next((value.device for value in model.parameters()), torch.device("cpu"))
        return cls(model, Inputs.of(example_inputs, model).to(device), device)

    def hooked(self) -> list[torch.utils.hooks.RemovableHandle]:
        leaves = {
            name: module for name, module in self.model.named_modules() if not any(True for _ in module.children())
        }
        return [
            handle
            for name, module in leaves.items()
            for handle in (
                module.register_forward_pre_hook(lambda *_, name=name: self._starting(name)),
                module.register_forward_hook(lambda *_, name=name: self._ended(name)),
            )
        ]

    def run(self) -> None:
        self.runs.append({})
        self.inputs.clone().call(self.model)

    def medians(self) -> dict[str, float]:
        first, *others = self.runs
        return {name: 1e3 * median(run.get(name, 0.0) for run in others) for name in first}

    def _starting(self, name: str) -> None:
        self.started[name] = self._now()

    def _ended(self, name: str) -> None:
        self.runs[-1][name] = self.runs[-1].get(name, 0.0) + self._now() - self.started.pop(name)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        own = FINE and self.device.type == "cpu" and torch.get_num_threads() == 1
        return time.thread_time() if own else time.perf_counter()
