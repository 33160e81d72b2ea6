"""Measured times on disk, so that a device measures a layer or another call once: one JSON file in the user's cache.

It lies in `NASPRUNE_CACHE`, else in `~/.cache/nasprune`. A file that is damaged is measured anew and written over;
where nothing can be written, nothing is kept.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
from contextlib import suppress
from pathlib import Path

import torch

from nasprune.common.files import write_all
from nasprune.cost.times import Fit, Table
from nasprune.errors import InputError

FILE = "times.json"
BENDS = 0.5, 2.0
"""Beyond them a network's departure from its prediction is noise, or the file is damaged."""


def device_key(device: torch.device, threads: int, layers_by: str) -> str:
    """What measured times belong to: the device, its threads, and what runs layers, with its version."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {layers_by}"
    return f"{_processor()}, {threads} threads, memory kept, {layers_by}"


def known_times(key: str) -> Table:
    """What was measured for this device before."""
    kept = _read().get(key, {})
    layers = {name: Fit(*values) for name, values in kept.items() if len(values) > 1}
    return Table(layers, {name: values[0] for name, values in kept.items() if len(values) == 1})


def keep_times(key: str, table: Table) -> None:
    """Adds to what is kept for this device; nothing is written where it is there already."""
    found = _read()
    layers = {name: list(vars(fit).values()) for name, fit in table.layers.items()}
    kept = {**found.get(key, {}), **layers, **{name: [value] for name, value in table.calls.items()}}
    if kept == found.get(key):
        return
    found[key] = kept
    _write(found)


def known_bend(key: str, network: str) -> float:
    """`k` of a network on this device, where its share of the dense time was its predicted share to the power k."""
    found = _read().get(_networks(key), {}).get(network, [1.0])[0]
    return found if BENDS[0] <= found <= BENDS[1] else 1.0


def keep_bend(key: str, network: str, bend: float) -> None:
    """Keeps what `known_bend` gives."""
    found = _read()
    found.setdefault(_networks(key), {})[network] = [bend]
    _write(found)


def _networks(key: str) -> str:
    return f"networks: {key}"


def _folder() -> Path:
    return Path(os.environ.get("NASPRUNE_CACHE") or Path.home() / ".cache" / "nasprune")


def _write(found: dict[str, dict[str, list[float]]]) -> None:
    try:
        write_all(_folder(), {FILE: json.dumps(found, indent=1).encode()})
    except InputError as error:
        logging.getLogger(__name__).warning("measured times are not kept: %s", error)


def _read() -> dict[str, dict[str, list[float]]]:
    try:
        found = json.loads((_folder() / FILE).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if _sound(found) else {}


def _sound(found: object) -> bool:
    return isinstance(found, dict) and all(
        isinstance(kept, dict) and all(map(_times, kept.values())) for kept in found.values()
    )


def _times(values: object) -> bool:
    """Of a layer, or of another call."""
    return isinstance(values, list) and len(values) in (1, 4) and all(map(_time, values))


def _time(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
