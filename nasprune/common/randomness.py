"""The global random generators: seeded for a while, and as they were afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from nasprune.common.alone import alone


@contextmanager
def own_randomness(model: nn.Module) -> Iterator[None]:
    """The global generators of Python, numpy and torch are as before afterwards; other threads wait meanwhile."""
    with alone(), torch.random.fork_rng(devices=devices_of(model)):
        python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global state is what is guarded
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)  # noqa: NPY002


def seed_all(seed: int, model: nn.Module) -> None:
    """Seeds the global generators of Python, numpy and torch, those of the model's devices too."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for evaluators that draw from it
    torch.default_generator.manual_seed(seed % 2**63)
    for device in devices_of(model):
        torch.cuda.default_generators[device].manual_seed(seed % 2**63)


def states(model: nn.Module) -> list[object]:
    """Where the generators of torch, Python and numpy are, to be compared."""
    torchs = [torch.get_rng_state(), *(torch.cuda.get_rng_state(index) for index in devices_of(model))]
    return [*(state.tolist() for state in torchs), random.getstate(), str(np.random.get_state())]  # noqa: NPY002


def devices_of(model: nn.Module) -> list[int]:
    """The indices of the GPUs that hold parameters of the model."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return []
    found = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    return sorted(device.index for device in found)
