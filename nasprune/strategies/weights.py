"""Weights of layers in training, whose elements a strategy may set to zero one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.errors import PluginError
from nasprune.graph.program import Program
from nasprune.strategies.hooks import Hooks, with_input
from nasprune.strategies.runs import LAYERS, running

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
LEAST = 1e-12  # of a variance under a root


@dataclass(frozen=True)
class Weight:
    """A `LiveWeight`. modules: the layers that run with it, whose hooks see all that is done with it, or none."""

    name: str
    tensor: nn.Parameter
    modules: tuple[nn.Module, ...] = field(repr=False)
    hooks: Hooks = field(repr=False)

    def through(self, change: Callable[[Tensor, bool], Tensor]) -> None:
        def changed(module: nn.Module, args: Args, kwargs: Kwargs, output: Tensor) -> Tensor:
            return _computed(module, args, kwargs, change(self.tensor, module.training))

        for module in self._running():
            self.hooks.after(module, changed)

    def noisy(self, variance: Callable[[], Tensor], noise: Callable[[torch.Size], Tensor]) -> None:
        def noised(module: nn.Module, args: Args, kwargs: Kwargs, output: Tensor) -> Tensor:
            if not module.training:
                return output
            args, kwargs = with_input(args, kwargs, torch.square)
            spread = _computed(module, args, kwargs, variance(), bias=False).clamp(min=LEAST).sqrt()
            return output + spread * noise(output.shape).to(output)

        for module in self._running():
            self.hooks.after(module, noised)

    def _running(self) -> tuple[nn.Module, ...]:
        if not self.modules:
            raise PluginError(
                f"a strategy wanted to change what a layer computes with {self.name!r}, but code reads that weight "
                "where its layer does not run; give its class `hooks = True`, and such weights stay whole"
            )
        return self.modules

    def pull(self, gradient: Callable[[], Tensor]) -> None:
        self.hooks.on_gradient(self.tensor, lambda found: found + gradient())


def _computed(module: nn.Module, args: Args, kwargs: Kwargs, weight: Tensor, *, bias: bool = True) -> Tensor:
    """What the layer gives with another weight, or without its bias; no hooks run."""
    own = dict(module._parameters)
    none = own.get("bias") if not bias else None
    given = {"weight": weight} if none is None else {"weight": weight, "bias": torch.zeros_like(none)}
    try:
        module._parameters.update(given)  # type: ignore[arg-type]
        found: Tensor = module.forward(*args, **kwargs)
    finally:
        module._parameters.update(own)
    return found


def weights_of(part: nn.Module, program: Program, hooks: Hooks, *, everywhere: bool) -> tuple[Weight, ...]:
    """The trained weights of convolutions and linear layers, one that several layers share once.

    part: the network, or what the graph's scope names. program: that of `part`. everywhere: those as well that are read
    where no layer runs with them.
    """
    runs = running(part, program)
    found: dict[int, Weight] = {}
    for path, weight in _trained(part):
        if everywhere or id(weight) in runs:
            found.setdefault(id(weight), Weight(path, weight, runs.get(id(weight), ()), hooks))
    return tuple(found.values())


def left_whole(part: nn.Module, weights: Iterable[Weight]) -> tuple[str, ...]:
    """Names of the weights of layers that are read where no hook on the layer sees it."""
    taken = {id(weight.tensor) for weight in weights}
    return tuple({id(weight): path for path, weight in _trained(part) if id(weight) not in taken}.values())


def _trained(part: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for path, module in part.named_modules():
        weight = module._parameters.get("weight")
        if isinstance(module, LAYERS) and isinstance(weight, nn.Parameter) and weight.requires_grad:
            yield f"{path}.weight".lstrip("."), weight
