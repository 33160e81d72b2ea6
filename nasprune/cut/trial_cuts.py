"""Trial cuts: where sizes may be fixed in the user's code, cutting shows whether they are, and what helps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nasprune.common.calls import removed_after
from nasprune.common.inputs import Inputs
from nasprune.common.untouched import undisturbed
from nasprune.cut.readings import Settled, settle_lines
from nasprune.cut.remedies import Place, joined, readings
from nasprune.cut.stirred import distinct
from nasprune.cut.trial_plans import half_plan, uneven_plan
from nasprune.cut.tried import bisect, runs, trial
from nasprune.graph.analysis import Analysis
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph


def settle(model: nn.Module, found: Analysis) -> ModelGraph:
    """The graph with everything frozen whose trial cut fails, read in the way in which most of it succeeds."""
    part = submodule(model, found.graph.scope)
    stirred = distinct(model) if found.doubts else model
    settled = settle_lines(stirred, part, found)
    found = _settle_modules(stirred, part, settled)
    return _settle_widths(model, _settle_blocks(model, found.graph.frozen(settled.failed)))


def _settle_modules(stirred: nn.Module, part: nn.Module, settled: Settled) -> Analysis:
    """The reading under which modules that check their input against a size of their own take what is cut."""
    found = settled.found
    names = [group.name for group in found.graph.free_groups if group.name not in settled.failed]
    failed = bisect(names, lambda chosen: runs(stirred, found.graph, half_plan(found.graph, chosen))[1].reason)
    for name in failed:
        module = runs(stirred, found.graph, half_plan(found.graph, [name]))[1].module
        place = Place(frozenset(), (module,) if module is not None else ())
        for reading in readings(found, part, place, links=False, all_of_them=True):
            other = found.again(found.hints.with_more(joined(reading.sized.values())))
            plans = (half_plan(other.graph, [name]), uneven_plan(other.graph, [name]))
            if not any(trial(stirred, other.graph, plan).reason for plan in plans):
                found = other
                break
    return found


def _settle_blocks(model: nn.Module, graph: ModelGraph) -> ModelGraph:
    """The graph with those blocks frozen without which the model does not run."""

    def reason(names: Sequence[str]) -> str:
        return runs(model, graph, half_plan(graph, (), names))[1].reason

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
        return runs(model, graph, half_plan(graph, names))[1].reason

    return graph.frozen(bisect([group.name for group in graph.free_groups], reason))


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
