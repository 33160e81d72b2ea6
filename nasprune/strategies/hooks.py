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


def with_input(
    args: tuple[Any, ...], kwargs: dict[str, Any], change: Callable[[Tensor], Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with another tensor in the place of the first, which may be given by name."""
    if args:
        return (change(args[0]), *args[1:]), kwargs
    name = next(name for name, value in kwargs.items() if isinstance(value, Tensor))
    return (), {**kwargs, name: change(kwargs[name])}


@dataclass
class Hooks:
    """Hooks on modules, and those on gradients."""

    _handles: list[RemovableHandle] = field(default_factory=list)

    def before(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """`hook(module, args, kwargs)` runs before the module does, and may return others."""
        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def after(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """`hook(module, args, kwargs, output)` runs after the module did, and may return another output."""
        self._handles.append(module.register_forward_hook(hook, with_kwargs=True))

    def on_gradient(self, tensor: Tensor, hook: Callable[[Tensor], Tensor]) -> None:
        """`hook(gradient)` replaces every gradient of a parameter."""
        self._handles.append(tensor.register_hook(hook))  # type: ignore[no-untyped-call]

    @property
    def are_there(self) -> bool:
        return bool(self._handles)

    def release(self) -> None:
        """Takes all of them away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
