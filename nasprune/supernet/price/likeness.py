"""Modules that cost the same are counted once: in a supernet most candidates are alike, and trims count them again."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.supernet.price.counting import Counts, count_module

AT_MOST = 10_000
KNOWN: dict[Hashable, Counts] = {}
"""The counts of modules that are understood throughout; at most `AT_MOST`, the oldest go first."""


def count_once(module: nn.Module, input_shape: tuple[int, ...], known: dict[Hashable, Counts] | None = None) -> Counts:
    """`count_module`, unless a module that costs the same was counted before.

    Args:
        known: the counts of modules with settings that are not understood, to be used and added to while these modules
            live.

    Raises:
        InputError: as `count_module` does.
    """
    look = _Look()
    key = (_likeness(module, look), tuple(input_shape))
    memory = KNOWN if look.understood else ({} if known is None else known)
    if key not in memory:
        while len(memory) >= AT_MOST:
            del memory[next(iter(memory))]
        memory[key] = count_module(module, input_shape)
    return memory[key]


def likeness(module: nn.Module) -> Hashable | None:
    """Equal for modules that cost the same; `None` where settings are not understood."""
    look = _Look()
    found = _likeness(module, look)
    return found if look.understood else None


@dataclass
class _Look:
    """One look at a module. order: numbers its tensors, so that shared ones differ from equal ones.

    understood: whether the settings say all, and none is known only by the object that it is.
    """

    order: dict[int, int] = field(default_factory=dict)
    understood: bool = True


def _likeness(module: nn.Module, look: _Look) -> Hashable:
    """Equal for modules that cost the same: their classes, shapes and settings agree throughout.

    Settings that are not understood count as different unless they are the same object.
    """
    found: list[Hashable] = []
    for path, each in module.named_modules(remove_duplicate=False):
        own = {name: value for name, value in vars(each).items() if name != "_modules"}
        found.append((path, type(each), _setting(own, look)))
    return tuple(found)


def _setting(value: Any, look: _Look) -> Hashable:
    """What an attribute says of the cost."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        return type(value), repr(value)
    if isinstance(value, Tensor):
        content = value.detach().cpu().numpy().tobytes() if value.dtype in (torch.bool, torch.int64) else b""
        number = look.order.setdefault(id(value), len(look.order))
        return "tensor", number, tuple(value.shape), value.dtype, value.device, content
    if isinstance(value, dict):
        return "dict", tuple((repr(key), _setting(item, look)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return "list", tuple(_setting(item, look) for item in value)
    if isinstance(value, set | frozenset) and not value:
        return "set", ()
    look.understood = False
    return "object", id(value)
