"""Where the time of a network goes: measured at its layers, in a run of PyTorch operator by operator."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median

import torch
from torch import nn

from nasprune.common.allocation import memory_reused
from nasprune.common.inputs import ExampleInputs, Inputs
from nasprune.common.untouched import untouched

REPEATS = 3


@memory_reused()
def module_milliseconds(model: nn.Module, example_inputs: ExampleInputs, repeats: int = REPEATS) -> Mapping[str, float]:
    """Path of each module that holds no others -> median milliseconds of its calls in one run, all of them together.

    model: left as it is. What no such module runs, such as an addition, is in none.
    """
    leaves = {name: module for name, module in model.named_modules() if not any(True for _ in module.children())}
    runs: list[dict[str, float]] = []
    started: dict[str, float] = {}
    device = next((value.device for value in model.parameters()), torch.device("cpu"))

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def starting(name: str) -> None:
        started[name] = now()

    def ended(name: str) -> None:
        runs[-1][name] = runs[-1].get(name, 0.0) + 1e3 * (now() - started.pop(name))

    with untouched(model), torch.inference_mode():
        inputs = Inputs.of(example_inputs, model).to(device)
        handles = [
            handle
            for name, module in leaves.items()
            for handle in (
                module.register_forward_pre_hook(lambda *_, name=name: starting(name)),
                module.register_forward_hook(lambda *_, name=name: ended(name)),
            )
        ]
        try:
            for _ in range(1 + repeats):
                runs.append({})
                inputs.clone().call(model)
        finally:
            for handle in handles:
                handle.remove()
    return {name: median(run.get(name, 0.0) for run in runs[1:]) for name in runs[0]}
