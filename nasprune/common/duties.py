"""How it is checked that a plugin keeps its contract: run twice under different noise, and told what it breaks."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NoReturn, TypeVar

import numpy as np
import torch

from nasprune.errors import PluginError

Result = TypeVar("Result")


def twice(kind: object, run: Callable[[], Result], *, may_draw: bool = False) -> tuple[Result, Result]:
    """The results of two runs under different states of the global generators, which come back as they were.

    Unless it `may_draw`, a run that moves the global generators fails.
    """
    users = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    results: list[Result] = []
    try:
        for noise in (1, 2):
            random.seed(noise)
            np.random.seed(noise)  # noqa: NPY002
            torch.default_generator.manual_seed(noise)
            before = _generators()
            results.append(run())
            if _generators() != before and not may_draw:
                fail(kind, "draws from a global random generator; use a seeded one of your own")
    finally:
        random.setstate(users[0])
        np.random.set_state(users[1])  # noqa: NPY002
        torch.set_rng_state(users[2])
    return results[0], results[1]


def _generators() -> tuple[object, ...]:
    arrays = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return random.getstate(), arrays["key"].tolist(), arrays["pos"], torch.get_rng_state().tolist()


def named(kind: object) -> str:
    """What a message calls the plugin."""
    return str(getattr(kind, "__qualname__", kind))


def fail(kind: object, duty: str) -> NoReturn:
    """Raises PluginError with the duty that is not kept."""
    raise PluginError(f"`{named(kind)}` {duty}")
