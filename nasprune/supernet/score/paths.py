"""Single paths through a supernet: one candidate of every choice runs, the others cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import prod
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.space.choices import OpChoice
from nasprune.supernet.find.mixed import MixedOp

SinglePath = Mapping[str, int]
"""Choice -> number of the candidate that runs."""
CLOSE = 1e-4
"""How far a mixture of equal tensors may be from them, as a share."""


def drawable(choice: OpChoice) -> tuple[int, ...]:
    """The candidates that a path may take: those that connect something, or all where none does."""
    return choice.connecting or tuple(range(len(choice.ops)))


def draw_paths(choices: Sequence[OpChoice], count: int, seed: int) -> list[dict[str, int]]:
    """Random paths on which every candidate of a choice occurs equally often, up to one.

    Candidates that connect nothing are not drawn. Where there are no more than `count` paths, each is given once.
    """
    options = [drawable(choice) for choice in choices]
    if prod(len(some) for some in options) <= count:
        return _all_paths(choices, options)
    rng = Random(seed)
    columns = []
    for some in options:
        column: list[int] = []
        while len(column) < count:
            column += rng.sample(some, len(some))
        column = column[:count]
        rng.shuffle(column)
        columns.append(column)
    return [
        {choice.name: column[number] for choice, column in zip(choices, columns, strict=True)}
        for number in range(count)
    ]


def _all_paths(choices: Sequence[OpChoice], options: Sequence[Sequence[int]]) -> list[dict[str, int]]:
    found: list[dict[str, int]] = [{}]
    for choice, some in zip(choices, options, strict=True):
        found = [{**path, choice.name: op} for path in found for op in some]
    return found


@dataclass(frozen=True, eq=False)
class Site:
    """Where a choice with several candidates mixes them. called: the modules that the net calls there."""

    choice: str
    candidates: tuple[nn.Module, ...]
    called: tuple[nn.Module, ...]


def sites(net: nn.Module, mixed: Sequence[MixedOp], choices: Sequence[OpChoice]) -> tuple[Site, ...]:
    """All such places of `net`, the supernet that the others describe or a copy of it."""
    found = []
    for choice in choices:
        for place in (mixed[number] for number in choice.places if len(mixed[number].ops) > 1):
            candidates = tuple(net.get_submodule(op) for op in place.ops)
            called = (net.get_submodule(place.path),) if place.single_path else candidates
            found.append(Site(choice.name, candidates, called))
    return tuple(found)


@contextmanager
def on_path(places: Sequence[Site], path: SinglePath) -> Iterator[None]:
    """Inside, of every choice only the candidate that `path` names runs; nothing stays behind.

    Every candidate gives what this one gives, which is worked out once, so that whatever mixes them with shares that
    sum to one has it for the mixture, and knows nothing of this. Gradients reach that candidate alone. Choices that
    `path` lacks go on as ever.
    """
    before: list[tuple[dict[str, Any], Any]] = []
    try:
        for place in places:
            if place.choice not in path:
                continue
            alone = place.called is not place.candidates
            once = _once(place.candidates[path[place.choice]].forward, alone=alone)
            for module in place.called:
                before.append((vars(module), vars(module).get("forward")))
                vars(module)["forward"] = once
        yield
    finally:
        for attributes, forward in reversed(before):
            attributes.pop("forward")
            if forward is not None:
                attributes["forward"] = forward


def shortened(net: nn.Module, places: Sequence[Site], run: Callable[[], object]) -> tuple[Site, ...]:
    """The same places, where modules that give nothing but their mixture are called for as a whole.

    That is seen, not assumed: on two paths the module around the candidates reads what they read and gives what the
    candidate gave that ran. It need not mix equal tensors then, which takes longer than many an operation.

    Args:
        run: runs the net once.
    """
    around = _owners(net, places)
    for last in (0, -1):
        seen: dict[int, list[tuple[object, object]]] = {}
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(on_path(places, {site.choice: range(len(site.candidates))[last] for site in places}))
            for module in (module for site in places if site in around for module in (around[site], *site.candidates)):
                stack.callback(module.register_forward_hook(_recorder(seen)).remove)
            run()
        around = {site: owner for site, owner in around.items() if _gives_mixture(seen, owner, site)}
    return tuple(replace(site, called=(around[site],)) if site in around else site for site in places)


def _owners(net: nn.Module, places: Sequence[Site]) -> dict[Site, nn.Module]:
    """The modules around lists of the candidates of one place; not around those that run one at a time."""
    paths = {id(module): path for path, module in net.named_modules()}
    found: dict[int, list[Site]] = {}
    for site in places:
        if site.called is site.candidates:
            path = paths[id(site.candidates[0])].rpartition(".")[0]
            while path and _only_holds(net.get_submodule(path)):
                path = path.rpartition(".")[0]
            if path:
                found.setdefault(id(net.get_submodule(path)), []).append(site)
    modules = {id(module): module for module in net.modules()}
    return {sites[0]: modules[owner] for owner, sites in found.items() if len(sites) == 1}


def _only_holds(module: nn.Module) -> bool:
    """Whether this is a list that the net never calls."""
    kind = next((kind for kind in (nn.ModuleList, nn.ModuleDict) if isinstance(module, kind)), None)
    return kind is not None and type(module).forward is kind.forward


def _recorder(seen: dict[int, list[tuple[object, object]]]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        seen.setdefault(id(module), []).append((args[0] if args else None, output))

    return hook


def _gives_mixture(seen: Mapping[int, list[tuple[object, object]]], owner: nn.Module, site: Site) -> bool:
    calls = seen.get(id(owner), [])
    ran = next((seen[id(module)] for module in site.candidates if id(module) in seen), [])
    if len(calls) != 1 or not ran:
        return False
    (received, given), (read, gave) = calls[0], ran[0]
    return (
        received is read
        and isinstance(given, Tensor)
        and isinstance(gave, Tensor)
        and given.shape == gave.shape
        and torch.allclose(given, gave, rtol=CLOSE, atol=CLOSE * float(gave.abs().max()))
    )


def _once(forward: Callable[..., Tensor], *, alone: bool) -> Callable[..., Tensor]:
    """The same function, which remembers what it gave for the last tensor as long as nobody wrote into either.

    alone: whether it is given the first argument only: others are for the module that mixes.
    """
    last: list[Any] = [None, None]

    def remembered(received: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        marks = last[1]
        if last[0] is not None and last[0][0] is received and marks == _versions(*last[0]):
            return last[0][1]  # type: ignore[no-any-return]
        given = forward(received) if alone else forward(received, *args, **kwargs)
        last[:] = [(received, given), _versions(received, given)]
        return given

    return remembered


def _versions(*tensors: Tensor) -> tuple[int, ...]:
    return tuple(tensor._version for tensor in tensors)
