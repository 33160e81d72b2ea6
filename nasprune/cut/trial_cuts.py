"""Trial cuts: where sizes may be fixed in the user's code, cutting shows whether they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nasprune.common.calls import removed_after
from nasprune.common.inputs import Inputs
from nasprune.common.untouched import undisturbed
from nasprune.cut.plan import PrunePlan
from nasprune.cut.surgery import build
from nasprune.cut.verify import bisect, distinct, first_line, trial
from nasprune.graph.capture import submodule
from nasprune.graph.model import CoupledGroup, ModelGraph


def settle(model: nn.Module, graph: ModelGraph, doubts: Mapping[str, frozenset[str]]) -> ModelGraph:
    """The graph with everything frozen whose trial cut fails. doubts: group name -> lines that may fix its size."""
    return _settle_widths(model, _settle_doubts(model, _settle_blocks(model, graph), doubts))


def _settle_doubts(model: nn.Module, graph: ModelGraph, doubts: Mapping[str, frozenset[str]]) -> ModelGraph:
    """The graph with those doubtful groups frozen whose trial cut does not run or does not verify.

    Groups that are in doubt because of the same lines of code are tried together. doubts: group name -> lines.
    """
    lines: dict[str, list[str]] = {}
    for group in graph.groups:
        if group.free and group.name in doubts:
            lines.setdefault(", ".join(sorted(doubts[group.name])), []).append(group.name)
    stirred = distinct(model) if lines else model

    def reason(chosen: Sequence[str]) -> str:
        names = [name for line in chosen for name in lines[line]]
        return trial(stirred, graph, half_plan(graph, names)).reason

    failed = bisect(list(lines), reason)
    return graph.frozen(
        {
            name: f"its size seems to be fixed in the code at {line} ({failed[line]})"
            for line in failed
            for name in lines[line]
        }
    )


def _settle_blocks(model: nn.Module, graph: ModelGraph) -> ModelGraph:
    """The graph with those blocks frozen without which the model does not run."""

    def reason(names: Sequence[str]) -> str:
        return _why_not(model, graph, half_plan(graph, (), names))

    names = [block.name for block in graph.blocks]
    if not names or not reason(names):
        return graph
    odd = _not_tensor_to_tensor(submodule(model, graph.scope), graph.example_inputs, names)
    failed = bisect([name for name in names if name not in odd], reason)
    return graph.frozen({**dict.fromkeys(odd, "it takes or returns more than one tensor"), **failed})


def _settle_widths(model: nn.Module, graph: ModelGraph) -> ModelGraph:
    """The graph with those groups frozen whose cut the model does not survive: it takes a size from elsewhere.

    Sizes that the code reads off one tensor and uses on another leave no trace in the program, but the model fails.
    """

    def reason(names: Sequence[str]) -> str:
        return _why_not(model, graph, half_plan(graph, names))

    return graph.frozen(bisect([group.name for group in graph.free_groups], reason))


def _why_not(model: nn.Module, graph: ModelGraph, plan: PrunePlan) -> str:
    """Why the cut model does not run, "" where it does."""
    try:
        part = submodule(build(model, graph, plan), graph.scope)
        with undisturbed(part):
            graph.example_inputs.clone().call(part)
    except Exception as error:  # the user's code may fail in any way once it is cut: that is what is being tried
        return f"{type(error).__name__}: {first_line(error)}"
    return ""


def _not_tensor_to_tensor(model: nn.Module, inputs: Inputs, names: Sequence[str]) -> set[str]:
    """Those of the named modules that do not turn one tensor into one tensor of the same shape."""
    fine: set[str] = set()

    def watch(name: str) -> RemovableHandle:
        def hook(_: nn.Module, args: tuple[object, ...], result: object) -> None:
            if args and isinstance(args[0], Tensor) and isinstance(result, Tensor) and args[0].shape == result.shape:
                fine.add(name)

        return model.get_submodule(name).register_forward_hook(hook)

    handles = [watch(name) for name in names]
    with removed_after(handles), undisturbed(model):
        inputs.clone().call(model)
    return set(names) - fine


def half_plan(graph: ModelGraph, names: Sequence[str], dropped: Sequence[str] = ()) -> PrunePlan:
    """Keeps about half of each named group, an uneven choice of units, the same share of every cell."""
    return PrunePlan(
        signature=graph.signature,
        keep={name: _uneven_half(graph.group(name)) for name in names},
        drop=tuple(sorted(dropped)),
        scope=graph.scope,
    )


def _uneven_half(group: CoupledGroup) -> tuple[int, ...]:
    steps = group.width // group.multiple_of
    kept: list[int] = []
    for number, cell in enumerate(group.partitions):
        wanted = len(cell) // steps * max(1, steps // 2)
        order = sorted(cell, key=lambda unit: ((unit * 7919 + number * 104729) % 65537, unit))
        kept += order[:wanted]
    return tuple(sorted(kept))
