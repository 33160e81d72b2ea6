"""Weights of layers in training, whose elements a strategy may set to zero one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nasprune.strategies.hooks import Hooks

LAYERS = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
LEAST = 1e-12  # of a variance under a root


@dataclass(frozen=True)
class Weight:
    """A `LiveWeight`. leaf: what the module calls it."""

    name: str
    tensor: nn.Parameter
    module: nn.Module = field(repr=False)
    hooks: Hooks = field(repr=False)
    leaf: str = "weight"

    def through(self, change: Callable[[Tensor, bool], Tensor]) -> None:
        def changed(x: Tensor, output: Tensor) -> Tensor:
            return self._computed(x, change(self.tensor, self.module.training))

        self._after(changed)

    def noisy(self, variance: Callable[[], Tensor], noise: Callable[[torch.Size], Tensor]) -> None:
        def noised(x: Tensor, output: Tensor) -> Tensor:
            if not self.module.training:
                return output
            spread = self._computed(x.square(), variance(), bias=False).clamp(min=LEAST).sqrt()
            return output + spread * noise(output.shape).to(output)

        self._after(noised)

    def pull(self, gradient: Callable[[], Tensor]) -> None:
        self.hooks.on_gradient(self.tensor, lambda found: found + gradient())

    def _after(self, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        busy: list[bool] = []

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if busy:  # the layer runs inside of this hook
                return output
            busy.append(True)
            try:
                return change(inputs[0], output)
            finally:
                busy.pop()

        self.hooks.after(self.module, hook)

    def _computed(self, x: Tensor, weight: Tensor, *, bias: bool = True) -> Tensor:
        """What the layer gives with another weight, or without its bias."""
        given = {self.leaf: weight}
        own = self.module._parameters.get("bias")
        if not bias and own is not None:
            given["bias"] = torch.zeros_like(own)
        found: Tensor = functional_call(self.module, given, (x,))
        return found


def weights_of(part: nn.Module, hooks: Hooks) -> tuple[Weight, ...]:
    """The trained weights of convolutions and linear layers, one that several layers share once."""
    found: dict[int, Weight] = {}
    for path, module in part.named_modules():
        weight = module._parameters.get("weight")
        if isinstance(module, LAYERS) and isinstance(weight, nn.Parameter) and weight.requires_grad:
            found.setdefault(id(weight), Weight(f"{path}.weight".lstrip("."), weight, module, hooks))
    return tuple(found.values())
