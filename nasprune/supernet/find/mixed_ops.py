"""Finding the mixed operations of any supernet: by what its modules read and give, by gradients, by class names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.common.untouched import untouched
from nasprune.errors import InputError
from nasprune.supernet.find.adapters import candidate_names, known_containers
from nasprune.supernet.find.aliases import shared_ops, unshared
from nasprune.supernet.find.mixed import Findings, MixedOp
from nasprune.supernet.find.mixture import NoGradientError, NotMixedError, owned_shares, shares
from nasprune.supernet.find.named import named_siblings
from nasprune.supernet.find.probe import Call, Inputs, Measure, backward, gives_zeros, observe, run
from nasprune.supernet.find.siblings import LISTS, Siblings, child_path, structure_of, tried, unlike
from nasprune.supernet.find.single import drawn_holders, one_that_runs

SCALES = (1.0, 2.0**90, 2.0**-90)
"""Factors on the loss, tried in turn where gradients vanish or overflow."""
OTHER_SEED = 1
SAME = 1e-3
"""How far two measurements of one weight may be apart."""


def find_mixed_ops(
    net: nn.Module, example_inputs: Tensor | tuple[Tensor, ...], named: Mapping[str, bool] | None = None
) -> Findings:
    """The places where several candidate operations read one tensor and their outputs are summed with weights.

    Siblings are candidates if they read the same tensor object and give equal shapes, if the gradients of a random
    projection of the net's output with respect to what they give are multiples of one another (the factors are the
    weights of the mixture), and if they differ in structure. All children that run must qualify where the parent is a
    ModuleList or ModuleDict; where it is another module, its own output must be the sum, with weights that sum to
    one. Classes of NNI, MMRazor and DARTS that declare candidates are known by name, also where a forward pass runs
    one of them only. A module that draws at random which one of its children runs, and gives just what that gives,
    holds candidates too. The net is left as found; it runs in eval mode, a batch of one is doubled.

    Args:
        example_inputs: what the net is called with, batch first.
        named: paths of modules that hold candidates by the user's word: lists, or modules that hold one or are called;
            and whether each does so even where no weights of a mixture can be measured.

    Raises:
        InputError: the inputs are no tensors, or the net does not run on them.
    """
    inputs = _checked(net, example_inputs)
    rejected: dict[str, str] = {}
    unnamed: dict[str, str] = {}
    with unshared(net):
        calls, random = observe(net, inputs)
        ran = frozenset(calls)
        picked = drawn_holders(net, inputs, calls) if random else []
        siblings = _siblings(net, inputs, calls, named or {}, picked, rejected, unnamed)
        del calls
        found = _judged(net, inputs, siblings, rejected)
        drawn = _drawn(found, _judged(net, inputs, siblings, {}, OTHER_SEED)) if random else frozenset()
    found = [replace(each, weights=None) if each.ops in drawn else each for each in found]
    order = {path: number for number, (path, _) in enumerate(net.named_modules(remove_duplicate=False))}
    mixed = _placed(net, sorted(found, key=lambda each: order[each.ops[0]]))
    return Findings(
        mixed,
        rejected,
        shared_ops(net, mixed, ran),
        tuple(each.path for each in mixed if each.ops in drawn),
        {path: name for path, name in unnamed.items() if path in rejected},
    )


def _drawn(found: Sequence[MixedOp], again: Sequence[MixedOp]) -> frozenset[tuple[str, ...]]:
    """The candidates of those whose weights are others in another forward pass, or may be: all but one are zero."""
    other = {each.ops: each.weights for each in again}
    return frozenset(
        each.ops
        for each in found
        if each.weights is not None and (max(each.weights) > 1 - SAME or not _close(each.weights, other.get(each.ops)))
    )


def _close(one: Sequence[float], other: Sequence[float] | None) -> bool:
    return other is not None and all(abs(a - b) <= SAME for a, b in zip(one, other, strict=True))


def _siblings(
    net: nn.Module,
    inputs: Inputs,
    calls: Mapping[str, list[Call]],
    named: Mapping[str, bool],
    picked: Sequence[str],
    rejected: dict[str, str],
    unnamed: dict[str, str],
) -> list[Siblings]:
    """All that may be candidates; why others are none goes to `rejected`, what would do if named to `unnamed`."""
    with untouched(net):
        declared = list(_declared(net, calls, rejected, named))
        declared += named_siblings(net, inputs, calls, named, rejected)
        known = {*named, *rejected, *(path for each in declared for path in (each.path, each.holder))}
        drawn = {path: True for path in picked if path not in known}
        declared += named_siblings(net, inputs, calls, drawn, rejected, "seen to draw at random")
        claimed = {each.holder for each in declared} | set(rejected)
        siblings = declared + list(_like_candidates(net, calls, claimed, rejected, unnamed))
        return [replace(each, zeros=_zeros(net, each)) for each in siblings]


def _checked(net: nn.Module, example_inputs: Any) -> Inputs:
    """The inputs as a tuple; a batch of one is doubled, with noise on numbers that are no integers."""
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    if not inputs or not all(isinstance(value, Tensor) for value in inputs):
        kinds = ", ".join(type(value).__name__ for value in inputs) or "nothing"
        raise InputError(f"expected example_inputs to be a tensor or a tuple of tensors, got {kinds}")
    if not all(value.dim() and value.shape[0] == 1 for value in inputs):
        return inputs
    double = tuple(torch.cat([value, _noisy(value)]) for value in inputs)
    try:
        with untouched(net), torch.no_grad():
            run(net, double)
    except InputError:
        return inputs
    return double


def _noisy(value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0), device="cpu")
    return value.detach() + noise.to(value) * value.detach().std(unbiased=False)


def _declared(
    net: nn.Module, calls: Mapping[str, list[Call]], rejected: dict[str, str], named: Mapping[str, bool]
) -> Iterator[Siblings]:
    """What frameworks declare by class name, as far as it runs; not what the user named."""
    for one in known_containers(net):
        if one.path in named:
            continue
        ran = {key: calls[path][0] for key in one.keys if (path := child_path(one.holder, key)) in calls}
        first = next(iter(ran.values()), None)
        if first is None or first.received is None or first.output is None:
            rejected[one.path] = f"{one.kind}: no candidate runs on these inputs from tensor to tensor"
            continue
        found = Siblings(one.path, one.holder, one.keys, first.received, first.output, frozenset(ran), True, one)
        reason = unlike(net, found, calls)
        if reason:
            rejected[one.path] = f"{one.kind}: {reason}"
        else:
            yield found


def _zeros(net: nn.Module, siblings: Siblings) -> frozenset[str]:
    """Those that give zeros whatever they read."""
    return frozenset(
        key for key in siblings.keys if gives_zeros(net.get_submodule(siblings.op(key)), siblings.received)
    )


def _like_candidates(
    net: nn.Module,
    calls: Mapping[str, list[Call]],
    claimed: set[str],
    rejected: dict[str, str],
    unnamed: dict[str, str],
) -> Iterator[Siblings]:
    """Siblings that each run once, read the same tensor object and give equal shapes."""
    for holder, parent in net.named_modules():
        if holder in claimed or type(parent).forward is nn.Sequential.forward:
            continue
        keys = [key for key, _ in parent.named_children()]
        ran = {key: calls[path] for key in keys if (path := child_path(holder, key)) in calls}
        groups: dict[tuple[int, tuple[int, ...]], list[str]] = {}
        for key, made in ran.items():
            if len(made) == 1 and made[0].received is not None and made[0].output is not None:
                groups.setdefault((id(made[0].received), made[0].output), []).append(key)
        listed = isinstance(parent, LISTS)
        if listed and _repeated(list(ran.values())):
            rejected[holder] = _several_times(holder, max(len(made) for made in ran.values()))
        reason, name = one_that_runs(net, holder, calls, keys, ran)
        if reason:
            rejected[holder] = reason
            unnamed.update({holder: name} if name else {})
        for (_, shape), members in groups.items():
            received = ran[members[0]][0].received
            if len(members) < 2 or received is None or (listed and len(members) < len(ran)):
                continue
            found = Siblings(holder, holder, tuple(members), received, shape, frozenset(members), listed)
            idle = [key for key in keys if key not in ran] if listed else []
            fit = [key for key, other in zip(idle, tried(net, found, idle), strict=True) if other == shape]
            yield replace(found, keys=tuple(key for key in keys if key in (*members, *fit)))


def _several_times(holder: str, times: int) -> str:
    return (
        "they run several times in a forward pass; give every place modules of its own, such as those of "
        f"`nn.ModuleList(copy.deepcopy(net.get_submodule({holder!r})) for _ in range({times}))`, one for each time"
    )


def _repeated(ran: Sequence[Sequence[Call]]) -> bool:
    """Whether modules look like candidates in their first calls, and are called again."""
    first = {(id(calls[0].received), calls[0].output) for calls in ran}
    return len(ran) > 1 and len(first) == 1 and all(len(calls) > 1 for calls in ran)


def _judged(
    net: nn.Module, inputs: Inputs, siblings: Iterable[Siblings], rejected: dict[str, str], seed: int | None = None
) -> list[MixedOp]:
    """Those that are mixed operations; why others are none goes to `rejected`. seed: of what the net draws."""
    found, undecided = [], list(siblings)
    for normalise in (False, True):
        paths = dict.fromkeys(path for each in undecided if len(each.running) > 1 for path in each.measured)
        silent = []
        passed = backward(net, inputs, list(paths), normalise=normalise, seed=seed) if paths else nullcontext(_nothing)
        with passed as measure:
            for each in undecided:
                try:
                    found.append(_judge(net, each, measure))
                except NotMixedError as error:
                    if isinstance(error, NoGradientError) and not normalise:
                        silent.append(each)
                    elif each.known and each.known.sure:
                        found.append(_mixed(net, each, each.keys, None, f"{each.known.kind}, mixed in an unknown way"))
                    else:
                        reason = f"{', '.join(each.keys)}: {error}"
                        rejected[each.path] = "; ".join(filter(None, (rejected.get(each.path), reason)))
        undecided = silent
    return found


def _nothing(scale: float) -> Mapping[str, Tensor]:
    return {}


def _judge(net: nn.Module, siblings: Siblings, measure: Measure) -> MixedOp:
    if siblings.known and len(siblings.running) == 1:
        return _mixed(net, siblings, siblings.keys, None, f"{siblings.known.kind}, which runs one candidate at a time")
    found = _shares(siblings, measure)
    if siblings.known:
        return _mixed(net, siblings, siblings.keys, found, siblings.known.kind)
    keys = tuple(key for key in siblings.keys if found is None or key in found or key not in siblings.running)
    structures = [structure_of(net.get_submodule(siblings.op(key))) for key in keys]
    if all(other == structures[0] for other in structures):
        raise NotMixedError("they are alike in structure, as branches, experts or heads that all stay are")
    kind = type(net.get_submodule(siblings.holder)).__name__
    how = "a weighted sum of" if found is not None else "a sum with weights of both signs of"
    return _mixed(net, siblings, keys, found, f"{how} the children of a {kind}")


def _shares(siblings: Siblings, measure: Measure) -> dict[str, float] | None:
    """Key of each child that runs and takes part -> its share."""
    for scale in SCALES:
        measured = measure(scale)
        owner = None if siblings.listed else measured.get(siblings.holder)
        gradients = {key: measured[op] for key in siblings.keys if (op := siblings.op(key)) in measured}
        if not gradients or (owner is None and not siblings.listed):
            raise NotMixedError("they, or the module that holds them, give no floating-point tensor")
        try:
            return shares(gradients) if owner is None else owned_shares(gradients, owner)
        except NoGradientError:
            if scale == SCALES[-1]:
                raise
    raise AssertionError("unreachable")


def _mixed(
    net: nn.Module, siblings: Siblings, keys: tuple[str, ...], found: Mapping[str, float] | None, how: str
) -> MixedOp:
    known = siblings.known
    names = known.names if known else None
    if names is None:
        names = candidate_names(keys, [net.get_submodule(siblings.op(key)) for key in keys])
    return MixedOp(
        path=siblings.path,
        ops=tuple(siblings.op(key) for key in keys),
        names=names,
        cell="",
        index=0,
        input_shape=tuple(siblings.received.shape),
        output_shape=siblings.shape,
        weights=None if found is None else tuple(found.get(key, 0.0) for key in keys),
        single_path=known is not None and len(siblings.running) == 1,
        label=known.label if known else "",
        found_by=how,
        zeros=tuple(number for number, key in enumerate(keys) if key in siblings.zeros),
        named=known is not None and known.named,
    )


def _placed(net: nn.Module, mixed: Sequence[MixedOp]) -> tuple[MixedOp, ...]:
    """The same with `cell` and `index`."""
    same = Counter(each.path for each in mixed)
    inside = Counter(ancestor for each in mixed for ancestor in _ancestors(each.path))
    seen: Counter[str] = Counter()
    placed = []
    for each in mixed:
        above = (path for path in _ancestors(each.path) if not isinstance(net.get_submodule(path), LISTS))
        cell = each.path if same[each.path] > 1 else next((path for path in above if inside[path] > 1), "")
        placed.append(replace(each, cell=cell, index=seen[cell]))
        seen[cell] += 1
    return tuple(placed)


def _ancestors(path: str) -> list[str]:
    """The paths of all modules around the one at `path`, innermost first."""
    parts = path.split(".") if path else []
    return [".".join(parts[:end]) for end in range(len(parts) - 1, -1, -1)]
