"""Tensors that a model reads and does not register: weights in plain lists, and other ways to a registered one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from nasprune.common.closures import REGISTRIES


def same_tensor(one: Tensor, other: Tensor) -> bool:
    """Whether both are the same numbers in the same memory."""
    alike = one.shape == other.shape and one.stride() == other.stride() and one.dtype == other.dtype
    return alike and one.device == other.device and one.numel() > 0 and one.data_ptr() == other.data_ptr()


def unregistered(model: nn.Module, constants: Mapping[str, Tensor]) -> dict[str, str]:
    """Path of a layer or parameter in a plain list, tuple or dict, of those that hold `constants` -> why it stays."""
    if not constants:
        return {}
    read = list(constants.values())
    known = {id(module) for module in model.modules()} | {id(value) for value in model.parameters()}
    found = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in REGISTRIES or not isinstance(value, list | tuple | dict):
                continue
            for place, inside in _inside(value):
                tensors = list(inside.parameters()) if isinstance(inside, nn.Module) else [inside]
                if id(inside) not in known and any(same_tensor(a, b) for a in tensors for b in read):
                    better = "nn.ModuleList or nn.ModuleDict" if isinstance(inside, nn.Module) else "nn.ParameterList"
                    found[f"{path}.{name}{place}".lstrip(".")] = (
                        f"in a plain {type(value).__name__}, where torch does not see its weights; it stays whole, and "
                        f"can be cut once it is in an {better}"
                    )
    return found


def _inside(value: Any, place: str = "") -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """Modules and parameters in containers at any depth, with the way to them."""
    if isinstance(value, nn.Module | nn.Parameter):
        yield place, value
    elif isinstance(value, list | tuple | dict) and len(place) < 40:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in items:
            yield from _inside(part, f"{place}[{key!r}]")
