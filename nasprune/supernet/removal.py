"""Taking candidates out for real: their parameters and their computation go, the code around them stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from nasprune.graph.capture import undisturbed
from nasprune.space import OpChoice
from nasprune.supernet.choices import Kept
from nasprune.supernet.mixed import MixedOp

OFF = -1e4
"""The architecture weight of a removed candidate. Finite: minus infinity turns to NaN under Adam with weight decay."""


class Removed(nn.Module):
    """Stands where a candidate was and gives zeros of the same shape, without parameters or work.

    A list of candidates keeps its length, so that code which pairs candidates with weights goes on working, whether it
    sums, stacks or concatenates. channels: of the output; strides: input size over output size, for each further axis.
    The zeros have their channels from a buffer, which is not saved, so that channels can be cut as everywhere else.
    """

    zeros: Tensor

    def __init__(self, channels: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.register_buffer("zeros", torch.zeros(channels), persistent=False)

    @classmethod
    def of(cls, place: MixedOp) -> Removed:
        """For a candidate of `place`."""
        sizes = zip(place.input_shape[2:], place.output_shape[2:], strict=True)
        return cls(place.output_shape[1], [max(1, round(wide / max(narrow, 1))) for wide, narrow in sizes])

    def forward(self, inputs: Tensor, *args: object) -> Tensor:
        sizes = [-(-size // stride) for size, stride in zip(inputs.shape[2:], self.strides, strict=True)]
        zeros = self.zeros.to(inputs.dtype).reshape(1, -1, *(1 for _ in sizes))
        return zeros.expand(inputs.shape[0], -1, *sizes)

    def extra_repr(self) -> str:
        return f"channels={len(self.zeros)}, strides={self.strides}"


class Mixed(nn.Module):
    """A softmax-weighted sum of candidates: what a choice becomes of which a forward pass ran only one at a time.

    names: of the candidates, which are children of this module; `alpha` (candidates,) are their trainable logits.
    """

    def __init__(self, candidates: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict({name.replace(".", "_"): module for name, module in candidates.items()})
        self.alpha = nn.Parameter(torch.zeros(len(candidates)))

    def forward(self, inputs: Tensor, *args: object, **kwargs: object) -> Tensor:
        shares = self.alpha.softmax(0)
        outputs = [share * module(inputs) for share, module in zip(shares, self.candidates.values(), strict=True)]
        return torch.stack(outputs).sum(0)


def cut(net: nn.Module, mixed: Sequence[MixedOp], choices: Sequence[OpChoice], kept: Kept) -> nn.Module:
    """A copy of `net` that holds only the `kept` candidates, with their weights. `net` is left as it is.

    A candidate that goes is replaced by `Removed`; an empty selection takes all away. Where a
    forward pass ran one candidate at a time, the one that stays takes the place of its owner, and several become a
    `Mixed`.
    """
    small = copy.deepcopy(net)
    for choice in choices:
        stay = kept[choice.name]
        for place in (mixed[number] for number in choice.places):
            if not stay:
                sever(small, place)
                continue
            if place.single_path:
                modules = {place.names[k]: small.get_submodule(place.ops[k]) for k in stay}
                one = next(iter(modules.values()))
                replace(small, place.path, one if len(stay) == 1 else Mixed(modules))
                continue
            for number, path in enumerate(place.ops):
                if number not in stay:
                    replace(small, path, Removed.of(place))
    return small


def replace(net: nn.Module, path: str, module: nn.Module) -> None:
    """Sets the submodule at `path`, in place; it takes over the mode of the one that was there."""
    parent, _, name = path.rpartition(".")
    owner = net.get_submodule(parent)
    module.training = net.get_submodule(path).training
    owner._modules[name] = module


def sever(net: nn.Module, place: MixedOp) -> None:
    """Takes all candidates of a mixed operation away, in place."""
    if place.single_path:
        replace(net, place.path, Removed.of(place))
        return
    for path in place.ops:
        replace(net, path, Removed.of(place))


def severed(net: nn.Module, mixed: Sequence[MixedOp], inputs: tuple[Any, ...]) -> tuple[int, ...]:
    """The mixed operations that play no part any more: nothing comes in, or nobody listens.

    That is: all candidates that still run read exact zeros (their node has lost every input), or the net's output has
    no gradient with respect to what they give (a dangling edge).
    """
    silent: dict[int, bool] = {}
    probes: dict[int, list[Tensor]] = {}
    handles = []

    def watch(number: int) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            silent[number] = silent.get(number, True) and not bool(args[0].detach().any())
            probe = torch.zeros_like(output, requires_grad=True)
            probes.setdefault(number, []).append(probe)
            return output + probe

        return hook

    for number, place in enumerate(mixed):
        for path in place.ops:
            module = _find(net, path)
            if module is not None and not isinstance(module, Removed):
                handles.append(module.register_forward_hook(watch(number)))
    try:
        with undisturbed(net), torch.enable_grad():
            outputs = [leaf for leaf in tree_leaves(net(*inputs)) if isinstance(leaf, Tensor) and leaf.requires_grad]
            flat = [(number, probe) for number, found in probes.items() for probe in found]
            total = sum((output.float().square() * _weights(output)).sum() for output in outputs)
            gradients = (
                torch.autograd.grad(total, [probe for _, probe in flat], allow_unused=True)
                if isinstance(total, Tensor) and flat
                else [None] * len(flat)
            )
    finally:
        for handle in handles:
            handle.remove()
    heard = {
        number for (number, _), gradient in zip(flat, gradients, strict=True) if gradient is not None and gradient.any()
    }
    return tuple(sorted(number for number in probes if silent[number] or number not in heard))


def _weights(output: Tensor) -> Tensor:
    """Distinct positive factors, so that no sum of outputs is constant by construction."""
    return torch.linspace(1, 2, output.numel(), device=output.device).reshape(output.shape)


def _find(net: nn.Module, path: str) -> nn.Module | None:
    try:
        return net.get_submodule(path)
    except AttributeError:
        return None
