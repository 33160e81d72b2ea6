"""Hooks that a strategy has put on a network, all taken away at once in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def forward_hooks(model: nn.Module) -> list[dict[int, Any]]:
    """The dictionaries, live, that hold the forward hooks of all modules by numbers that no two hooks share."""
    return [place for module in model.modules() for place in (module._forward_hooks, module._forward_pre_hooks)]


@dataclass
class Hooks:
    """Hooks by the dictionary of the module that holds them, and those on gradients."""

    _held: list[tuple[dict[int, Any], int]] = field(default_factory=list)
    _handles: list[RemovableHandle] = field(default_factory=list)

    def before(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """`hook(module, inputs)` runs before the module does."""
        self._held.append((module._forward_pre_hooks, module.register_forward_pre_hook(hook).id))

    def after(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """`hook(module, inputs, output)` runs after the module did."""
        self._held.append((module._forward_hooks, module.register_forward_hook(hook).id))

    def on_gradient(self, tensor: Tensor, hook: Callable[[Tensor], Tensor]) -> None:
        """`hook(gradient)` replaces every gradient of a parameter."""
        self._handles.append(tensor.register_hook(hook))  # type: ignore[no-untyped-call]

    @property
    def are_there(self) -> bool:
        return bool(self._held or self._handles)

    def release(self) -> None:
        """Takes all of them away."""
        for place, number in self._held:
            place.pop(number, None)
        for handle in self._handles:
            handle.remove()
        self._held.clear()
        self._handles.clear()
