"""Several processes that torchrun started for one command, as they are told by environment variables."""

from __future__ import annotations

import os


def how_many() -> int:
    """Processes that torchrun started together; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_WORLD_SIZE" in os.environ else 1


def is_first() -> bool:
    """Whether this process is the one that speaks and writes."""
    return how_many() == 1 or os.environ.get("RANK", "0") == "0"
