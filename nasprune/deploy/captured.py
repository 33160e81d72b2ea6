"""A network as one program of torch.export, for one number of items in a batch or for any."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.utils._pytree import tree_leaves

from nasprune.common.calls import plain_attention, removed_after
from nasprune.common.inputs import Inputs
from nasprune.common.outputs import leaves_of, tensors_of
from nasprune.common.untouched import undisturbed
from nasprune.errors import InputError
from nasprune.graph.capture import explain, flat, quiet

BATCH = "batch"
"""The name of the axis whose size is free."""
THEN = "export the part of it that has no data-dependent code, or take the format torchscript"


@dataclass(frozen=True)
class Captured:
    """A program. inputs: that it was captured with. batch: the one number of items that it takes, `None` for any."""

    program: ExportedProgram
    inputs: Inputs
    batch: int | None


def captured(model: nn.Module, inputs: Inputs, *, free: bool, tensors: bool = False) -> Captured:
    """The program of `model`, which is in eval mode and left as it is.

    Args:
        free: whether axis 0 of all tensors, of which there are at least two items, may have any size.
        tensors: whether it gives tensors alone, each its own, for formats that know nothing else.

    Raises:
        InputError: torch.export cannot capture it so.
    """
    shapes = ShapesCollection() if free else None  # type: ignore[no-untyped-call]
    if shapes is not None:
        for tensor in inputs.tensors:
            if tensor.ndim:
                shapes[tensor] = {0: Dim(BATCH)}
    with undisturbed(model), plain_attention(), quiet():
        try:
            own = inputs.clone()
            outputs = own.call(model)  # what it keeps from its first run is then made of real tensors
            with _apart(model, own, outputs) if tensors else flat(model, outputs):
                keywords = dict(inputs.kwargs)
                program = torch.export.export(model, inputs.args, keywords, dynamic_shapes=shapes, strict=False)
        except Exception as error:  # torch.export raises whatever the user's code or its own passes raise
            raise InputError(explain(error, THEN)) from error
    size = next((len(tensor) for tensor in inputs.tensors if tensor.ndim), 1)
    return Captured(program, inputs, None if free else size)


class _Filled(nn.Module):
    """A network that is called with the tensors among its inputs; the other inputs are always the same."""

    def __init__(self, net: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.net, self._inputs = net, inputs

    def forward(self, *tensors: Tensor) -> Any:
        left = iter(tensors)
        return self._inputs.map(lambda _: next(left)).call(self.net)


def filled(model: nn.Module, inputs: Inputs) -> tuple[nn.Module, Inputs]:
    """The network called with tensors alone, for formats that know nothing else: numbers and `None` are part of it."""
    if len(inputs.tensors) == len(inputs.leaves):
        return model, inputs
    return _Filled(model, inputs).eval(), Inputs(tuple(inputs.tensors))


def _apart(model: nn.Module, inputs: Inputs, outputs: Any) -> AbstractContextManager[None]:
    """Inside, a network gives a list of tensors that are no inputs, and each another one."""
    known = [id(leaf) for leaf in (*inputs.tensors, *leaves_of(outputs))]
    if len(set(known)) == len(known) and all(isinstance(leaf, Tensor) for leaf in tree_leaves(outputs)):
        return nullcontext()

    def own(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any], given: Any) -> list[Tensor]:
        seen = {id(tensor) for tensor in tensors_of((args, keywords))}
        found = []
        for tensor in tensors_of(given):
            found.append(torch.stack([tensor])[0] if id(tensor) in seen else tensor)  # runtimes leave out a copy
            seen.add(id(tensor))
        return found

    return removed_after([model.register_forward_hook(own, with_kwargs=True)])


def items(inputs: Inputs, count: int) -> Inputs | None:
    """The call with `count` items, made of those that are there; `None` where it has no batch.

    Floating-point tensors get noise of a hundredth of their spread, so that no two items are equal.
    """
    if len({len(tensor) for tensor in inputs.tensors if tensor.ndim}) != 1:
        return None
    noise = torch.Generator().manual_seed(0)

    def repeated(tensor: Tensor) -> Tensor:
        if not tensor.ndim or not len(tensor):
            return tensor
        more = tensor[torch.arange(count) % len(tensor)]
        if not more.is_floating_point():
            return more
        return more + 0.01 * more.std(correction=0) * torch.randn(more.shape, generator=noise).to(more)

    return inputs.map(repeated)
