"""What training loops share: the learning rate of each step, precision, and Lightning Fabric without announcements."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from nasprune.common.processes import how_many
from nasprune.errors import InputError


class Schedule:
    """The learning rate of each step: linear to `lr` over `warmup` of all steps, then half a cosine to 0.

    Loshchilov, Hutter 2017, arXiv:1608.03983, without restarts.
    """

    def __init__(self, lr: float, total: int, warmup: float = 0.0) -> None:
        self.lr = lr
        self.total = total
        self.rise = int(warmup * total)
        self.step = 0

    def next(self) -> float:
        """The rate of the next step."""
        self.step += 1
        return self.at(self.step - 1)

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        if step < self.rise:
            return self.lr * (step + 1) / self.rise
        done = (step - self.rise) / max(1, self.total - self.rise)
        return self.lr * (1 + math.cos(math.pi * done)) / 2


def fast_precision(device: torch.device) -> str:
    """ "bf16-mixed" where the device multiplies bfloat16 faster than single precision, else "32-true"."""
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if torch.cpu.get_capabilities().get("amx_bf16") else "32-true"


def start_fabric(device: str, precision: str, *, together: bool = False) -> Any:
    """Fabric on one device. device: "auto", "cpu", "cuda"; precision: as Fabric names it, such as "bf16-mixed".

    together: whether the processes that torchrun started train one network, with DistributedDataParallel; else each
    trains its own.

    Raises:
        InputError: there is no such device or precision here.
    """
    from lightning_fabric import Fabric

    placed: dict[str, Any] = {"devices": 1}
    if together and how_many() > 1:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        placed = {"devices": here, "num_nodes": how_many() // here, "strategy": "ddp_find_unused_parameters_true"}
    try:
        fabric = Fabric(accelerator=device, precision=precision, **placed)  # type: ignore[arg-type]
        fabric.launch()
        return fabric
    except (ValueError, RuntimeError) as error:
        raise InputError(f"cannot train on device {device!r} in precision {precision!r}: {error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Fabric says on every start which device it took; the caller did not ask."""
    loggers = [logging.getLogger(name) for name in ("lightning_fabric", "lightning.fabric", "lightning_utilities")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
