"""Taking candidates out for real: their parameters and their computation go, the code around them stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.common.calls import first_tensor, removed_after
from nasprune.common.outputs import tensors_of
from nasprune.common.untouched import twin, untouched
from nasprune.space.choices import OpChoice
from nasprune.supernet.find.choices import Kept
from nasprune.supernet.find.mixed import MixedOp

OFF = -1e4
"""The architecture weight of a removed candidate. Finite: minus infinity turns to NaN under Adam with weight decay."""
SPATIAL = tuple(f"torch.nn.modules.{name}" for name in ("conv", "pooling", "batchnorm", "instancenorm"))
"""Modules of torch that have the channels of images and signals right after the batch."""


@dataclass(frozen=True)
class Axis:
    """The size of one axis of what a candidate gave: (size of what it read * times + plus) // over."""

    times: int = 1
    over: int = 1
    plus: int = 0

    def of(self, size: int) -> int:
        return (size * self.times + self.plus) // self.over


class Removed(nn.Module):
    """Stands where a candidate was and gives zeros of the same shape, without parameters or work.

    A list of candidates keeps its length, so that code which pairs candidates with weights goes on working, whether it
    sums, stacks or concatenates. axes: how each axis follows that of the first tensor it is called with. channels: at
    which axis the zeros are as many as a buffer has, which is not saved, so that channels can be cut as everywhere
    else; `None` is none. written: whether zeros are made anew each time, for nets that write into what they are given;
    otherwise they take no memory.
    """

    zeros: Tensor

    def __init__(self, axes: Sequence[Axis], channels: int | None = None, count: int = 1) -> None:
        super().__init__()
        self.axes, self.channels, self.written = tuple(axes), channels, False
        self.register_buffer("zeros", torch.zeros(count, device="cpu"), persistent=False)

    @classmethod
    def of(cls, place: MixedOp, module: nn.Module, channels: int | None) -> Removed:
        """For a candidate of `place`. channels: the axis where they are."""
        axes = _axes(place, module, channels)
        return cls(axes, channels, place.output_shape[channels] if channels is not None else 1)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        inputs = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        zeros = self.zeros.to(inputs.dtype) if inputs.is_floating_point() else self.zeros
        sizes = [
            -1 if number == self.channels else axis.of(inputs.shape[number] if axis.times else 0)
            for number, axis in enumerate(self.axes)
        ]
        zeros = zeros.reshape([-1 if number == self.channels else 1 for number in range(len(sizes))]).expand(sizes)
        return zeros.clone(memory_format=torch.contiguous_format) if self.written else zeros

    def extra_repr(self) -> str:
        return f"axes={[(axis.times, axis.over, axis.plus) for axis in self.axes]}, channels={self.channels}"


def _axes(place: MixedOp, module: nn.Module, channels: int | None) -> list[Axis]:
    """How the axes of what a candidate gives follow those of what it reads.

    Where sizes differ, several rules may explain them; the candidate is asked again with an input of another size.
    """
    read, gave = place.input_shape, place.output_shape
    if len(read) != len(gave):
        return [Axis(), *(Axis(0, 1, size) for size in gave[1:])]
    fixed = {channels} if channels is not None else set()
    grown = {number for number in range(1, len(read)) if read[number] != gave[number]} - fixed
    other = tuple(2 * size + 1 if number in grown else size for number, size in enumerate(read))
    again = _shape_given(module, other) if grown else None
    found = []
    for number, (size, out) in enumerate(zip(read, gave, strict=True)):
        rules = [Axis(0, 1, out)] if number in fixed else _rules(size, out)
        fit = [rule for rule in rules if again is not None and rule.of(other[number]) == again[number]]
        found.append((fit or rules)[0])
    return found


def _rules(size: int, out: int) -> list[Axis]:
    """What may make `out` of `size`, the likeliest first: scaling where it divides, a lack of padding where not."""
    if size == out or not size or not out:
        return [Axis(1, 1, out - size)]
    times, near = max(1, out // size), round(size / out)
    rules = [Axis(times)] if times > 1 else []
    for over in (near, near - 1, near + 1):
        if over > 1:
            rules += [Axis(1, over, plus) for plus in (over - 1, *range(0, -7, -1))]
    rules += [Axis(1, 1, out - size), Axis(times, 1, out - size * times)]
    return [rule for rule in rules if rule.of(size) == out]


def _shape_given(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """What a candidate gives for an input of this shape; `None` where it does not run."""
    like = next(
        (one for one in (*module.parameters(), *module.buffers()) if one.is_floating_point()),
        torch.empty(0, device="cpu"),
    )
    try:
        with untouched(module), torch.no_grad():
            output = module(torch.zeros(shape, dtype=like.dtype, device=like.device))
    except Exception:  # a module's own code may raise anything
        return None
    return tuple(output.shape) if isinstance(output, Tensor) and output.ndim == len(shape) else None


def _channel_axis(net: nn.Module, place: MixedOp) -> int | None:
    """Where the channels of what candidates give are: first of an image or a signal, last of tokens.

    `None`: neither is known, and nothing is lost by taking all sizes from the input.
    """
    shape = place.output_shape
    inside = [each for path in place.ops if (op := _find(net, path)) is not None for each in op.modules()]
    known = next((each for each in inside if isinstance(each, Removed)), None)
    if known is not None or len(shape) < 2:
        return known.channels if known is not None else None
    first = any(type(each).__module__ in SPATIAL for each in inside)
    last = any(isinstance(each, nn.Linear) and each.out_features == shape[-1] for each in inside)
    if len(shape) == 3:
        return 2 if last else 1 if first else None if shape == place.input_shape else 2
    return len(shape) - 1 if last and not first else 1


class Mixed(nn.Module):
    """A softmax-weighted sum of candidates: what a choice becomes of which a forward pass ran only one at a time.

    names: of the candidates, which are children of this module; `alpha` (candidates,) are their trainable logits.
    """

    def __init__(self, candidates: Mapping[str, nn.Module], alpha: Tensor | None = None) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict({name.replace(".", "_"): module for name, module in candidates.items()})
        self.alpha = nn.Parameter(
            torch.zeros(len(candidates), device="cpu") if alpha is None else alpha.detach().clone()
        )

    def forward(self, inputs: Tensor, *args: object, **kwargs: object) -> Tensor:
        shares = self.alpha.softmax(0)
        outputs = [
            share * op(inputs, *args, **kwargs) for share, op in zip(shares, self.candidates.values(), strict=True)
        ]
        return torch.stack(outputs).sum(0)


def cut(net: nn.Module, mixed: Sequence[MixedOp], choices: Sequence[OpChoice], kept: Kept) -> nn.Module:
    """A copy of `net` that holds only the `kept` candidates, with their weights. `net` is left as it is.

    A candidate that goes is replaced by `Removed`; an empty selection takes all away. Where a
    forward pass ran one candidate at a time, the one that stays takes the place of its owner, and several become a
    `Mixed`.
    """
    small = twin(net)
    for choice in choices:
        stay = kept[choice.name]
        for place in (mixed[number] for number in choice.places):
            if not stay:
                sever(small, place)
            elif is_alone(net, place):
                _replace_owner(small, place, stay)
            else:
                _remove(small, place, [path for number, path in enumerate(place.ops) if number not in stay])
    return small


def is_alone(net: nn.Module, place: MixedOp) -> bool:
    """Whether the module that holds the candidates is replaced as a whole: it runs one of them, or is a `Mixed`."""
    return place.single_path or isinstance(net.get_submodule(place.path), Mixed)


def _replace_owner(net: nn.Module, place: MixedOp, stay: Sequence[int]) -> None:
    """The candidate that stays in the place of what holds it, or a `Mixed` of several."""
    owner = net.get_submodule(place.path)
    modules = {place.names[k]: net.get_submodule(place.ops[k]) for k in stay}
    alpha = owner.alpha[list(stay)] if isinstance(owner, Mixed) else None
    replace(net, place.path, Mixed(modules, alpha) if len(stay) > 1 else next(iter(modules.values())))


def replace(net: nn.Module, path: str, module: nn.Module) -> None:
    """Sets the submodule at `path`, in place; it takes over the mode and the device of the one that was there."""
    parent, _, name = path.rpartition(".")
    owner, before = net.get_submodule(parent), net.get_submodule(path)
    module.training = before.training
    home = next((value.device for one in (before, net) for value in (*one.parameters(), *one.buffers())), None)
    owner._modules[name] = module if home is None else module.to(home)


def sever(net: nn.Module, place: MixedOp) -> None:
    """Takes all candidates of a mixed operation away, in place."""
    _remove(net, place, _paths(net, place))


def _paths(net: nn.Module, place: MixedOp) -> list[str]:
    """What runs in a mixed operation of a net from which candidates may have been cut."""
    found = [] if is_alone(net, place) else [path for path in place.ops if _find(net, path) is not None]
    return found or [place.path]


def _remove(net: nn.Module, place: MixedOp, paths: Sequence[str]) -> None:
    """Puts zeros where modules of `place` are, in place."""
    channels = _channel_axis(net, place)
    for path in paths:
        module = net.get_submodule(path)
        if not isinstance(module, Removed):
            replace(net, path, Removed.of(place, module, channels))


def settle(net: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Lets zeros be written to, in place, where the net does not run otherwise."""
    gone = [module for module in net.modules() if isinstance(module, Removed)]
    if not gone or runs(net, inputs):
        return
    for module in gone:
        module.written = True
    if not runs(net, inputs):  # for another reason, which is not hidden
        for module in gone:
            module.written = False


def runs(net: nn.Module, inputs: tuple[Any, ...]) -> bool:
    """Whether the net gives something on these inputs."""
    try:
        with untouched(net), torch.no_grad():
            net(*inputs)
    except Exception:  # a module's own code may raise anything
        return False
    return True


def severed(net: nn.Module, mixed: Sequence[MixedOp], inputs: tuple[Any, ...]) -> tuple[int, ...]:
    """The mixed operations that play no part any more: nothing comes in, or nobody listens.

    That is: all candidates that still run read exact zeros (their node has lost every input), or the net's output has
    no gradient with respect to what they give (a dangling edge).
    """
    silent: dict[int, bool] = {}
    probes: dict[int, list[Tensor]] = {}
    handles = []

    def watch(number: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
            silent[number] = silent.get(number, True) and not bool(first_tensor(args, kwargs).detach().any())
            probe = torch.zeros_like(output, requires_grad=True)
            probes.setdefault(number, []).append(probe)
            return output + probe

        return hook

    for number, place in enumerate(mixed):
        for path in _paths(net, place):
            module = net.get_submodule(path)
            if not isinstance(module, Removed):
                handles.append(module.register_forward_hook(watch(number), with_kwargs=True))
    with removed_after(handles), untouched(net), torch.enable_grad():
        outputs = [value for value in tensors_of(net(*inputs)) if value.requires_grad]
        flat = [(number, probe) for number, found in probes.items() for probe in found]
        total = sum((output.float().square() * _weights(output)).sum() for output in outputs)
        gradients = (
            torch.autograd.grad(total, [probe for _, probe in flat], allow_unused=True)
            if isinstance(total, Tensor) and flat
            else [None] * len(flat)
        )
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
