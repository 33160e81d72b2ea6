"""What is frozen so that a cut model lives: see `nasprune.cut.life`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from nasprune.common.calls import removed_after
from nasprune.common.inputs import Inputs
from nasprune.common.randomness import own_randomness
from nasprune.common.untouched import in_same_memory, twin
from nasprune.cut.life import Situation, as_given, in_training, why_not
from nasprune.cut.surgery import draft
from nasprune.cut.trial_plans import half_plan
from nasprune.cut.tried import bisect
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph


def kept_alive(model: nn.Module, graph: ModelGraph) -> ModelGraph:
    """The graph with those groups and blocks frozen whose cut the whole model does not survive, in training either.

    Parameters that no run reads, as those of a head for another task, may read what is cut: groups as wide as their
    inputs are frozen, too. Where there are such parameters, whole images are tried: on parts they may never run.
    """
    graph = graph.frozen(_read_by_nobody(model, graph))
    situations = [in_training(graph.call, backward=False, parts=not graph.program.unread)]
    if graph.scope is not None:
        situations.insert(0, as_given(graph.call))
    blocks = {block.name for block in graph.free_blocks}

    def reason(names: Sequence[str]) -> str:
        widths = [name for name in names if name not in blocks]
        plan = half_plan(graph, widths, [name for name in names if name in blocks])
        try:
            small = draft(model, graph, plan)
        except RuntimeError as error:
            return str(error)
        return why_not(model, small, situations)

    names = [group.name for group in graph.free_groups]
    graph = graph.frozen(bisect(names, reason))
    return graph.frozen(bisect([block.name for block in graph.free_blocks], reason))


def _read_by_nobody(model: nn.Module, graph: ModelGraph) -> dict[str, str]:
    """Group -> why it is frozen: a parameter that is never read has as many inputs as the group is wide somewhere."""
    part = submodule(model, graph.scope)
    owners = {name.rpartition(".")[0] for name in graph.program.unread}
    if not owners:
        return {}
    asleep = owners - _ran_in_training(model, part, owners, graph.call)
    widths = {size: path for path in sorted(asleep) if (size := _inputs_of(part.get_submodule(path))) is not None}
    reasons: dict[str, str] = {}
    for factors in graph.values.values():
        for factor in factors:
            path = widths.get(factor.units.shape[factor.cut])
            if path is not None:
                units = factor.units[factor.units >= 0]
                for number in set(graph.unit_group[units].tolist()):
                    reasons.setdefault(
                        graph.groups[number].name,
                        f"`{path}` reads {factor.units.shape[factor.cut]} channels and does not run on these inputs: "
                        "it may read these",
                    )
    return reasons


def _ran_in_training(model: nn.Module, part: nn.Module, owners: set[str], inputs: Inputs) -> set[str]:
    """Those of the modules that run in a training step."""
    ran: set[str] = set()
    copied = twin(model, in_same_memory(model))
    path_of = {id(module): path for path, module in part.named_modules()}
    pairs = zip(model.modules(), copied.modules(), strict=True)
    watched = {path_of[id(own)]: other for own, other in pairs if path_of.get(id(own)) in owners}
    handles = [module.register_forward_hook(lambda *_, path=path: ran.add(path)) for path, module in watched.items()]
    with removed_after(handles), own_randomness(model):
        _run(copied, in_training(inputs, backward=False))
    return ran


def _run(model: nn.Module, situation: Situation) -> None:
    """Runs the model as far as it goes."""
    try:
        situation.inputs.clone().call(model.train(situation.training))
    except Exception:  # a model that needs more than inputs to train, such as targets
        return


def _inputs_of(module: nn.Module) -> int | None:
    """How many channels a convolution or linear layer reads."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.in_channels
    return module.in_features if isinstance(module, nn.Linear) else None
