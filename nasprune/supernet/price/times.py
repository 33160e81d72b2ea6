"""How long candidates take on the device where their supernet lies: measured in this process, not counted."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.common.calls import first_tensor
from nasprune.common.untouched import untouched
from nasprune.cost import latency
from nasprune.space.choices import OpChoice
from nasprune.supernet.find.choices import Kept
from nasprune.supernet.find.mixed import MixedOp
from nasprune.supernet.price.gates import gated
from nasprune.supernet.price.likeness import likeness

PASSES = (5, 30)
"""Measured passes of one module, at least and at most."""
SPENT = 200.0
"""Milliseconds that these take, about."""
ROUNDS = 5
"""How often the net is measured with its candidates and without, in turn."""
AT_MOST = 10_000
KNOWN: dict[Hashable, float] = {}
"""Milliseconds of modules that were measured before in this process; at most `AT_MOST`, the oldest go first."""


@dataclass(frozen=True)
class Times:
    """Nanoseconds of one forward pass with the example inputs, which add up.

    base: the net with candidates that give their outputs at once. places: for each mixed operation those of its
    candidates, in order.
    """

    base: int
    places: tuple[tuple[int, ...], ...]

    def of_choice(self, choice: OpChoice) -> tuple[int, ...]:
        """For each candidate the sum over all tied mixed operations."""
        return tuple(sum(self.places[number][k] for number in choice.places) for k in range(len(choice.ops)))

    def of_kept(self, choices: Sequence[OpChoice], kept: Kept) -> int:
        """The net with the `kept` candidates only, as predicted."""
        return self.base + sum(
            self.places[number][k] for choice in choices for number in choice.places for k in kept[choice.name]
        )


def measured_times(
    net: nn.Module, mixed: Sequence[MixedOp], choices: Sequence[OpChoice], inputs: tuple[Tensor, ...]
) -> Times:
    """Every candidate by itself, on the tensor that it reads in the net; the net with all of them, and with none.

    Medians of 5 to 30 passes. Modules that cost the same are measured once. Candidates take other times in the net than
    alone, as caches and queues differ, so theirs are scaled by one factor to the difference that all of them make.
    """
    with gated(net, mixed, choices, {}):
        calls = _calls(net, mixed, inputs)
        alone = [
            [time_once(net.get_submodule(path), _received(calls, path, place, inputs)) for path in place.ops]
            for place in mixed
        ]
        total, without = _with_and_without(net, calls, inputs)
    apart = sum(sum(some) for some in alone)
    factor = (total - without) / apart if apart and total > without else 1.0
    places = tuple(tuple(round(1e6 * factor * time) for time in some) for some in alone)
    return Times(round(1e6 * without), places)


def time_once(module: nn.Module, received: Tensor) -> float:
    """Milliseconds of one pass of a module, unless one that costs the same was measured before."""
    like = likeness(module)
    where = (tuple(received.shape), received.dtype, str(received.device), torch.get_num_threads())
    if like is None:
        return _milliseconds(module, (received,))
    key = (like, where)
    if key not in KNOWN:
        while len(KNOWN) >= AT_MOST:
            del KNOWN[next(iter(KNOWN))]
        KNOWN[key] = _milliseconds(module, (received,))
    return KNOWN[key]


def _milliseconds(module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    once = latency.measure_latency(module, inputs, repeats=1)
    return latency.measure_latency(module, inputs, repeats=max(PASSES[0], _passes(once)))


def _passes(once: float) -> int:
    return max(1, min(PASSES[1], int(SPENT / max(once, 1e-3))))


def _with_and_without(net: nn.Module, calls: Mapping[str, _Call], inputs: tuple[Tensor, ...]) -> tuple[float, float]:
    """Milliseconds of the net with its candidates, and of the net where they take no time, measured in turn."""
    passes = _passes(latency.measure_latency(net, inputs, repeats=1))
    whole, base = [], []
    for _ in range(ROUNDS):
        whole.append(latency.measure_latency(net, inputs, repeats=passes))
        with _given_at_once(net, calls):
            base.append(latency.measure_latency(net, inputs, repeats=passes))
    return median(whole), median(base)


@dataclass(frozen=True)
class _Call:
    received: Tensor
    given: Any


def _calls(net: nn.Module, mixed: Sequence[MixedOp], inputs: tuple[Tensor, ...]) -> dict[str, _Call]:
    """Path of a candidate -> what it read and gave in a forward pass, where it ran."""
    found: dict[str, _Call] = {}

    def watch(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            found[path] = _Call(first_tensor(args, kwargs).detach(), output)

        return hook

    with untouched(net), torch.no_grad(), ExitStack() as stack:
        for path in (path for place in mixed for path in place.ops):
            hook = net.get_submodule(path).register_forward_hook(watch(path), with_kwargs=True)
            stack.callback(hook.remove)
        net(*inputs)
    return found


def _received(calls: Mapping[str, _Call], path: str, place: MixedOp, inputs: tuple[Tensor, ...]) -> Tensor:
    if path in calls:
        return calls[path].received
    return torch.zeros(place.input_shape, device=inputs[0].device)


@contextmanager
def _given_at_once(net: nn.Module, calls: Mapping[str, _Call]) -> Iterator[None]:
    """Inside, candidates give what they gave before, without any work."""
    before = []
    for path, call in calls.items():
        attributes = vars(net.get_submodule(path))
        before.append((attributes, attributes.get("forward")))
        attributes["forward"] = _constant(call.given)
    try:
        yield
    finally:
        for attributes, forward in before:
            del attributes["forward"]
            if forward is not None:
                attributes["forward"] = forward


def _constant(value: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: value
