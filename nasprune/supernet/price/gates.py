"""A factor on every candidate's output, set from outside by hooks: independent of how a supernet mixes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from nasprune.space.choices import OpChoice
from nasprune.supernet.find.mixed import MixedOp


@contextmanager
def gated(
    net: nn.Module, mixed: Sequence[MixedOp], choices: Sequence[OpChoice], gates: Mapping[str, Tensor]
) -> Iterator[None]:
    """Inside, the output of candidate k of a choice is multiplied by `gates[choice.name][k]`.

    Gates may require gradients. Choices without gates are left alone, except that where a forward pass runs only one
    candidate all run inside, and the mean of their gated outputs goes on. Nothing stays behind.

    Args:
        gates: choice name -> (ops,).
    """
    with ExitStack() as stack:
        for choice in choices:
            for place in (mixed[number] for number in choice.places):
                gate = gates.get(choice.name)
                if place.single_path:
                    stack.enter_context(_all_run(net, place))
                if gate is not None:
                    for number, path in enumerate(place.ops):
                        handle = net.get_submodule(path).register_forward_hook(_multiply(gate[number]))
                        stack.callback(handle.remove)
        yield


def _multiply(gate: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    return lambda module, args, output: output * gate


@contextmanager
def _all_run(net: nn.Module, place: MixedOp) -> Iterator[None]:
    """The module at `place` gives the mean of all its candidates instead of one."""
    owner = net.get_submodule(place.path)
    candidates = [net.get_submodule(path) for path in place.ops]

    def forward(inputs: Tensor, *args: object, **kwargs: object) -> Tensor:
        total: Tensor = candidates[0](inputs)
        for candidate in candidates[1:]:
            total = total + candidate(inputs)
        return total / len(candidates)

    own = vars(owner).get("forward")
    vars(owner)["forward"] = forward
    try:
        yield
    finally:
        del vars(owner)["forward"]
        if own is not None:
            vars(owner)["forward"] = own
