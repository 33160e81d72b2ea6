"""The global random generators: seeded for a while, and as they were afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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


def generators(model: nn.Module) -> dict[str, Tensor]:
    """Where the generators of torch, Python and numpy are, as tensors from which `set_generators` goes on."""
    _, numbers, normal = random.getstate()
    arrays: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002
    inner = arrays["state"]
    found = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(numbers, dtype=torch.int64, device="cpu"),
        "python normal": torch.tensor([] if normal is None else [normal], dtype=torch.float64, device="cpu"),
        "numpy": torch.tensor(
            [*inner["key"].tolist(), inner["pos"], arrays["has_gauss"]], dtype=torch.int64, device="cpu"
        ),
        "numpy normal": torch.tensor([arrays["gauss"]], dtype=torch.float64, device="cpu"),
    }
    return found | {f"cuda {index}": torch.cuda.get_rng_state(index) for index in devices_of(model)}


def set_generators(model: nn.Module, found: Mapping[str, Tensor]) -> None:
    """The generators of torch, Python and numpy go on from where `generators` found them."""
    torch.set_rng_state(found["torch"])
    normal = found["python normal"].tolist()
    random.setstate((3, tuple(found["python"].tolist()), normal[0] if normal else None))
    *key, place, has_normal = found["numpy"].tolist()
    arrays = ("MT19937", np.array(key, dtype=np.uint32), place, has_normal, float(found["numpy normal"]))
    np.random.set_state(arrays)  # noqa: NPY002
    for index in devices_of(model):
        torch.cuda.set_rng_state(found[f"cuda {index}"], index)


def devices_of(model: nn.Module) -> list[int]:
    """The indices of the GPUs that hold parameters of the model."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return []
    found = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    return sorted(device.index for device in found)
