"""What a module costs on its own: multiply-adds in two conventions, and parameters.

The two conventions differ by a few per cent and papers rarely name theirs, so every number here says which it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from nasprune.common.calls import without_gradients
from nasprune.common.untouched import untouched
from nasprune.cost.flops import operator_counts
from nasprune.cost.formulas import PRODUCTS
from nasprune.errors import InputError
from nasprune.supernet.find.alpha_slots import held_in

Counter = Literal["macs", "fvcore", "params", "latency"]
"""What budgets are in. "latency" is measured and no field of `Counts`."""


@dataclass(frozen=True)
class Counts:
    """Exact integers for one item.

    macs: multiply-adds of convolutions and dot products, without biases: the count of most papers' code.
    fvcore: FLOPs as fvcore counts them, with the operators that nasprune adds: `macs` plus batch norms, adaptive pools,
        interpolation and transforms.
    params: elements of all parameters.
    """

    macs: int = 0
    fvcore: int = 0
    params: int = 0

    def __getitem__(self, counter: Counter) -> int:
        return int(getattr(self, checked_counter(counter)))

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.macs + other.macs, self.fvcore + other.fvcore, self.params + other.params)

    def __sub__(self, other: Counts) -> Counts:
        return Counts(self.macs - other.macs, self.fvcore - other.fvcore, self.params - other.params)

    def __mul__(self, times: int) -> Counts:
        return Counts(self.macs * times, self.fvcore * times, self.params * times)


COUNTERS: tuple[str, ...] = tuple(field.name for field in fields(Counts))


def checked_counter(counter: str, more: Sequence[str] = ()) -> str:
    """The name itself. more: what may be named beside fields of `Counts`.

    Raises:
        InputError: it is no counter.
    """
    if counter not in COUNTERS:
        raise InputError(f"expected one of the counters {', '.join((*COUNTERS, *more))}, got {counter!r}")
    return counter


def count_module(module: nn.Module, input_shape: tuple[int, ...]) -> Counts:
    """Counts one module at one input shape, for one item, in eval mode; the module is left as found.

    Args:
        module: anything that maps one tensor to tensors, a whole network or one operation. It is given zeros of the
            number format of its parameters, and integers where it does not run on these.
        input_shape: of its input, batch first; what it says of the batch does not matter, the count is for one item.

    Raises:
        InputError: the module does not run on such an input, or cannot be traced.
    """
    first = next(
        (p for p in (*module.parameters(), *module.buffers()) if p.is_floating_point()), torch.empty(0, device="cpu")
    )
    x = torch.zeros(1, *input_shape[1:], dtype=first.dtype, device=first.device)
    try:
        found = _counted(module, x)
    except Exception as error:  # a module's own code may raise anything
        with contextlib.suppress(Exception):  # such as the numbers of words
            return _summed(module, _counted(module, x.long()))
        line = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"cannot count a {type(module).__name__} on an input of shape {tuple(x.shape)}: {type(error).__name__}: "
            f"{line}; expected a module that runs on one tensor of that shape"
        ) from error
    return _summed(module, found)


def _counted(module: nn.Module, x: Tensor) -> Mapping[str, int]:
    with untouched(module), _plain_tensors(module):
        return operator_counts(module, x)


def _summed(module: nn.Module, found: Mapping[str, int]) -> Counts:
    flops = {name.removeprefix("flops:"): int(number) for name, number in found.items() if name.startswith("flops:")}
    return Counts(
        macs=sum(flops.get(name, 0) for name in PRODUCTS),
        fvcore=sum(flops.values()),
        params=sum(parameter.numel() for parameter in module.parameters()),
    )


@contextlib.contextmanager
def _plain_tensors(module: nn.Module) -> Iterator[None]:
    """Weights kept as plain attributes (DARTS' alphas) need no gradient meanwhile: tracing refuses them otherwise."""
    found: list[Tensor] = []
    parameters = {id(parameter) for parameter in module.parameters()}
    for child in module.modules():
        for value in vars(child).values():
            for _, item in held_in(value):
                if item.requires_grad and item.is_leaf and id(item) not in parameters:
                    found.append(item)
    with without_gradients(found):
        yield
