"""What runs a network while it is timed: PyTorch as it is, or what torch.compile makes of it.

A runtime that needs another library, such as onnxruntime, implements `Runtime` in the room `deploy`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from nasprune.common.factories import one_line
from nasprune.common.inputs import Inputs
from nasprune.cost.timed_layers import Sized
from nasprune.errors import InputError


class Runtime(ABC):
    """Runs networks and single layers. name: that it is asked for by. fuses: joins other calls to the layers."""

    name: ClassVar[str]
    fuses: ClassVar[bool] = True

    @property
    @abstractmethod
    def layers_by(self) -> str:
        """What single layers are run by, with its version: times that were measured by another are others."""

    @abstractmethod
    def check(self, device: torch.device) -> None:
        """Raises InputError where networks on this device cannot be run by it here."""

    @abstractmethod
    def begin(self) -> None:
        """Forgets the networks of comparisons that are over."""

    @abstractmethod
    def ready(self, model: nn.Module, inputs: Inputs, *, trial: bool = False) -> Callable[[Inputs], object]:
        """A network in eval mode, ready to be called with inputs of these shapes.

        Args:
            trial: whether it is one of many that a search compares. A shorter way to nearly the same times will do.

        Raises:
            InputError: the network cannot be run by it.
        """

    @abstractmethod
    def layer(self, sized: Sized, device: torch.device) -> Callable[[], object]:
        """A layer with random numbers, ready to be run."""


class Eager(Runtime):
    """PyTorch, operator by operator."""

    name = "eager"
    fuses = False

    @property
    def layers_by(self) -> str:
        return f"torch {torch.__version__}"

    def check(self, device: torch.device) -> None:
        """It runs everywhere."""

    def begin(self) -> None:
        """Nothing is kept."""

    def ready(self, model: nn.Module, inputs: Inputs, *, trial: bool = False) -> Callable[[Inputs], object]:
        return lambda own: own.call(model)

    def layer(self, sized: Sized, device: torch.device) -> Callable[[], Tensor]:
        x = torch.randn(sized.shape, device=device).to(sized.dtype)
        weight = torch.randn(sized.weight, device=device).to(sized.dtype)
        bias = torch.randn(sized.weight[0], device=device).to(sized.dtype) if sized.bias else None
        if sized.operator == "linear":
            return lambda: nn.functional.linear(x, weight, bias)
        call = getattr(nn.functional, sized.operator)
        return lambda: call(x, weight, bias, sized.stride, sized.padding, sized.dilation, sized.groups)


class Compiled(Eager):
    """torch.compile. Layers alone are those of eager mode, whose kernels it calls; what it fuses is all the rest."""

    name = "compile"
    fuses = True

    def begin(self) -> None:
        """torch compiles one piece of code eight times at most, then runs it as it is."""
        torch.compiler.reset()

    def ready(self, model: nn.Module, inputs: Inputs, *, trial: bool = False) -> Callable[[Inputs], object]:
        made = torch.compile(model, dynamic=False)
        try:
            inputs.clone().call(made)
        except Exception as error:  # whatever the compiler, or the compiler that it calls, raises
            raise InputError(
                f"torch.compile cannot run the network here: {type(error).__name__}: {one_line(error)}; it needs a C++ "
                "compiler on a CPU; take --runtime eager or onnxruntime"
            ) from error
        return lambda own: own.call(made)


EAGER = Eager()
