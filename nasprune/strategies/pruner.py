"""`nasprune.pruner`: a strategy in the user's own training loop, from the first step to the proved cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from nasprune.common.accepted import accepted
from nasprune.common.arguments import names, whole_number
from nasprune.common.blame import running
from nasprune.common.inputs import ExampleInputs, Inputs
from nasprune.common.outputs import tensors_of
from nasprune.common.randomness import own_randomness, seed_all
from nasprune.common.states import state_tensors
from nasprune.common.untouched import twin, undisturbed
from nasprune.cost.budget import Budget, Cost, parse_budget
from nasprune.cost.flops import CostModel
from nasprune.cut.plan import PrunePlan
from nasprune.cut.proof import Proof
from nasprune.cut.rebuild import rebuilt
from nasprune.cut.stirred import noise_like
from nasprune.cut.verify import prove
from nasprune.cut.weight_masks import count_nonzeros
from nasprune.errors import BudgetError, InputError, PluginError, VerificationError
from nasprune.graph.capture import submodule
from nasprune.graph.model import CoupledGroup, ModelGraph
from nasprune.registry import Plugins, with_its, with_keywords
from nasprune.run.names import op_rules, search_space
from nasprune.run.trace import trace
from nasprune.space.priced import PricedSpace
from nasprune.strategies.contract import Strategy
from nasprune.strategies.gates import without_gates
from nasprune.strategies.hooks import forward_hooks
from nasprune.strategies.task import Task

TRIED = 8  # inputs on which the trained and the cut network are compared
CHANGE = 1e-3  # of outputs, relative to the largest, from which on it is more than rounding
ACROSS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)  # norms over channels
TOLD = 3  # norms that a note names
SETTLING = (
    "The end of `{}`, which makes the network ready for the cut, changed outputs by {:.1e} of the largest: training "
    "was too short for what it does to settle; train longer, or fine-tune the cut network."
)


@dataclass(frozen=True)
class Pruned:
    """What a strategy came to. model: the cut network, in eval mode. plan: replays on the untouched dense network.

    dense, cut: costs. change: largest difference between the outputs before the cut and those of the cut network,
    relative to the largest output; where a strategy empties or merges what it drops it is rounding alone, but for norms
    over channels, such as layer norms. settling: the same between the network as it was trained and as the strategy's
    finish left it for the cut, which is nothing where what it does has settled. A note says where one is more.
    nonzeros: numbers of the cut network's parameters that are not zero. notes: what the strategy says, and what stayed
    whole.
    """

    model: nn.Module = field(repr=False)
    plan: PrunePlan = field(repr=False)
    graph: ModelGraph = field(repr=False)
    proof: Proof
    dense: Cost
    cut: Cost
    change: float
    settling: float
    nonzeros: int
    notes: tuple[str, ...] = ()


class Pruner:
    """Takes part in a training loop; `nasprune.pruner` makes one.

    Call `step` after every step of the optimizer, and `finish` after the last one. The network is changed in place, as
    by the optimizer, until `finish`, which gives a new one. It leaves the values of the network, or where the strategy
    works through hooks, takes these away, and what they did is in the weights.
    """

    def __init__(
        self, task: Task, strategy: Strategy, name: str, steps: int, rate: Rate, hooks: frozenset[int]
    ) -> None:
        self.task, self.strategy, self.name, self._hooks = task, strategy, name, hooks
        self._steps, self._rate, self._done = steps, rate, 0

    @property
    def steps(self) -> int:
        """How many were taken."""
        return self._done

    def go_back(self, steps: int) -> None:
        """As after so many steps, where weights and strategy are those of then."""
        self._done = steps

    def step(self) -> None:
        """What the strategy does after a step of the optimizer.

        Raises:
            InputError: all steps that were announced have been taken. PluginError: the strategy fails.
        """
        if self._done == self._steps:
            raise InputError(
                f"the pruner was made for {self._steps:,} steps, and this is one more; make it with the number of "
                "steps that the training takes: epochs times batches"
            )
        self._done += 1
        with running(type(self.strategy), f"strategy `{self.name}`"), torch.no_grad():
            self.strategy.step(self._done / self._steps, self._rate.now())

    def finish(self) -> Pruned:
        """The network, cut and proved.

        Raises:
            VerificationError: the cut is not right, or not within the budget. PluginError: the strategy fails.
            InputError: weights are no finite numbers any more.
        """
        task = self.task
        with own_randomness(task.model):
            seed_all(task.seed, task.model)
            with (
                running(type(self.strategy), f"strategy `{self.name}`"),
                torch.no_grad(),
                _left(task.model, self._hooks),
            ):
                trained = _outputs(task.model, task.graph)
                plan = self.strategy.finish()
                if not isinstance(plan, PrunePlan):
                    raise PluginError(f"strategy `{self.name}` finished with a {type(plan).__name__}, expected a plan")
                task.hooks.release()
                notes = (*self.strategy.notes, *task.notes, *_about_whole(task))
                ready = twin(task.model)
            _check_finite(ready, self.name)
            proven = prove(ready.eval(), task.graph, plan)
            cost = CostModel(task.graph).costs([proven.plan.counts])[0]
            if not task.problem.budget.allows(cost):
                whole = ", ".join(proven.proof.frozen)
                raise VerificationError(
                    f"within the proof the cut costs {cost}, above the budget of {task.problem.budget}: "
                    + (f"{whole} had to stay whole; exclude these from the start" if whole else "the plan is too large")
                )
            small = rebuilt(ready, proven.model, task.graph, proven.plan).eval()
            settled = _outputs(ready, task.graph)
            settling, change = _difference(trained, settled), _difference(settled, _outputs(small, task.graph))
            if not settling <= CHANGE:
                notes += (SETTLING.format(self.name, settling),)
            if not change <= CHANGE:
                notes += (_about_change(change, submodule(task.model, task.graph.scope), task.graph, proven.plan),)
            nonzeros = count_nonzeros(small)
            if task.nonzeros is not None and nonzeros > task.nonzeros:
                raise VerificationError(
                    f"strategy `{self.name}` left {nonzeros:,} numbers that are not zero, the budget allows "
                    f"{task.nonzeros:,}"
                )
        costs = task.problem.dense, cost
        return Pruned(small, proven.plan, task.graph, proven.proof, *costs, change, settling, nonzeros, notes)


@dataclass(frozen=True)
class Rate:
    """Of learning: that of an optimizer, or a fixed one."""

    optimizer: torch.optim.Optimizer | None
    fixed: float

    def now(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"]) if self.optimizer is not None else self.fixed


def _about_whole(task: Task) -> tuple[str, ...]:
    """What stayed as it was, though the strategy makes weights zero."""
    if not task.sparse or not task.left_whole:
        return ()
    return (
        f"Weights without zeros, since code reads them where their layer does not run, or never: "
        f"{', '.join(task.left_whole)}.",
    )


def _about_change(change: float, part: nn.Module, graph: ModelGraph, plan: PrunePlan) -> str:
    """That the network which was trained is not the one that the cut gives, and which norms may be why."""
    cut = dict.fromkeys(piece.param.rpartition(".")[0] for name in plan.keep for piece in graph.group(name).slices)
    norms = [path for path in cut if isinstance(part.get_submodule(path), ACROSS)]
    more = ", ..." if len(norms) > TOLD else ""
    why = f", since norms take means over channels that the cut takes away ({', '.join(norms[:TOLD])}{more})"
    return (
        f"The cut changed outputs by {change:.1e} of the largest{why if norms else ''}; fine-tune the cut network, "
        "or measure it before it is used."
    )


def _check_finite(model: nn.Module, name: str) -> None:
    """Raises InputError where training strayed."""
    for path, value in model.named_parameters():
        if not bool(value.isfinite().all()):
            raise InputError(
                f"training with the strategy `{name}` strayed: {path!r} is no longer finite; lower the learning rate, "
                "or clip gradients"
            )


def pruner(
    model: nn.Module,
    example_inputs: ExampleInputs,
    budget: str | Budget,
    *,
    steps: int,
    strategy: str = "hard",
    optimizer: torch.optim.Optimizer | None = None,
    lr: float = 0.01,
    space: str = "widths",
    space_options: Mapping[str, object] | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    scope: str | None = None,
    seed: int = 0,
    plugins: Plugins = None,
) -> Pruner:
    """A strategy for the training of `model` in a loop of your own.

        pruner = nasprune.pruner(model, images[:1], "50%", steps=epochs * len(loader), strategy="soft", optimizer=sgd)
        ...
            sgd.step()
            pruner.step()
        found = pruner.finish()

    Args:
        model: is changed in place by the strategy, as it is by the optimizer.
        example_inputs, budget, include, exclude, scope, space_options, plugins: as for `nasprune.search`.
        steps: how many the training takes.
        strategy: name of a plugin, with options where wanted: "soft(asymptotic=True)".
        optimizer: whose learning rate scales what the strategy does; else `lr`.
        space: widths are decided; blocks by strategies that can take them.
        seed: of what the strategy draws.

    Raises:
        BudgetError: the budget cannot be met. InputError: another argument cannot be used. PluginError: the strategy
        fails. TraceError: the model cannot be captured.
    """
    model = accepted(model)
    goal = parse_budget(budget, zeros=True)
    whole_number("steps", steps, "write for example steps=epochs * len(loader)")
    if steps < 1:
        raise InputError(f"`steps` must be at least 1, got {steps}")
    kind, options = with_keywords("strategies", strategy, plugins, ("task",))
    nonzeros = _nonzeros(model, goal, kind, strategy)
    inputs = Inputs.of(example_inputs, model)
    graph = trace(model, inputs, scope, rules=op_rules(plugins))
    whole = without_gates(submodule(model, scope), graph) if kind.hooks and nonzeros is None else {}
    graph = graph.frozen(whole)
    given = {**(space_options or {}), "include": names("include", include), "exclude": names("exclude", exclude)}
    chosen = {name: value for name, value in given.items() if value != ()}
    found = search_space(graph, space, plugins=plugins, **chosen)
    _check_own(submodule(model, scope), [graph.group(choice.name) for choice in found.widths])
    problem = PricedSpace(graph, found, CostModel(graph), goal)
    problem.require_feasible()
    notes = [f"Group {name} stayed whole: {why}." for name, why in whole.items()]
    task = Task(model, graph, problem, seed, nonzeros, hooked=kind.hooks, notes=tuple(notes))
    if nonzeros is not None and task.density == 0:
        dense = sum(parameter.numel() for parameter in model.parameters())
        others = f", and the weights {', '.join(task.left_whole)}," if task.left_whole else ""
        raise BudgetError(
            f"the budget of {goal} leaves {nonzeros:,} of {dense:,} numbers, fewer than biases and norms{others} have, "
            "which stay; raise it"
        )
    before = {number for place in forward_hooks(model) for number in place}
    with own_randomness(model), torch.no_grad():
        seed_all(seed, model)
        with running(kind, f"strategy `{strategy}`"):
            made = with_its(options, kind, strategy, task)
    own = frozenset(number for place in forward_hooks(model) for number in place if number not in before)
    return Pruner(task, made, strategy, steps, Rate(optimizer, lr), own)


def _nonzeros(model: nn.Module, goal: Budget, kind: type[Strategy], name: str) -> int | None:
    """How many numbers may be other than zero, `None` where the budget limits what widths cost.

    Raises:
        BudgetError: the budget is one that the strategy cannot keep.
    """
    if goal.weighs_zeros or (goal.limits_zeros and goal.limits_structure):
        raise BudgetError(
            f"the budget {str(goal)!r} is not one that a strategy can keep; give either one such as 50% or one such as "
            "10%NNZ"
        )
    if ("zeros" if goal.limits_zeros else "structure") not in kind.takes:
        wanted = (
            "numbers that are not zero, such as 10%NNZ" if goal.limits_structure else "what widths cost, such as 50%"
        )
        raise BudgetError(f"the strategy {name!r} keeps budgets of {wanted}, got {str(goal)!r}")
    return goal.zeros_from(count_nonzeros(model), 0) if goal.limits_zeros else None


def _check_own(part: nn.Module, groups: Sequence[CoupledGroup]) -> None:
    """Raises InputError where a layer computes its weight from parameters that strategies would set to zero."""
    touching: dict[str, list[str]] = {}
    for group in groups:
        for name in dict.fromkeys(piece.param for piece in group.slices):
            path = name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]
            touching.setdefault(path, []).append(group.name)
    for path, names_of in touching.items():
        layer = part.get_submodule(path)
        hooked = any(isinstance(hook, WeightNorm | SpectralNorm) for hook in layer._forward_pre_hooks.values())
        if hooked or parametrize.is_parametrized(layer):
            raise InputError(
                f"a strategy sets weights to zero in place, and {path!r} computes its own from other parameters; if a "
                "weight norm does, take it off first with torch.nn.utils.parametrize.remove_parametrizations or "
                f"torch.nn.utils.remove_weight_norm, or leave it whole with exclude={list(dict.fromkeys(names_of))}"
            )


@contextmanager
def _left(model: nn.Module, own: frozenset[int]) -> Iterator[None]:
    """Afterwards hooks are as before, but for those of numbers in `own`; so are values, unless one of these was there.

    What such hooks did is merged into the values. Where the block fails, all is as before.
    """
    values = {name: value.clone() for name, value in state_tensors(model).items()}
    hooks = [(place, dict(place)) for place in forward_hooks(model)]
    gone: frozenset[int] = frozenset()
    try:
        yield
        gone = own
        if any(number in own for _, before in hooks for number in before):
            values.clear()
    finally:
        held = state_tensors(model)
        for name, value in values.items():
            held[name].copy_(value)
        for live, before in hooks:
            live.clear()
            live.update({number: hook for number, hook in before.items() if number not in gone})


def _outputs(net: nn.Module, graph: ModelGraph) -> list[Tensor]:
    """What a network gives for noise."""
    with undisturbed(net):
        given = [tensors_of(noise_like(graph.call, seed).clone().call(net)) for seed in range(TRIED)]
    return [output.detach().clone() for outputs in given for output in outputs]


def _difference(trained: Sequence[Tensor], cut: Sequence[Tensor]) -> float:
    """Between outputs, relative to the largest."""
    largest, apart = 0.0, 0.0
    for one, other in zip(trained, cut, strict=True):
        if one.shape == other.shape and one.is_floating_point() and one.numel():
            largest = max(largest, float(one.abs().max()))
            apart = max(apart, float((one - other).abs().max()))
    return apart / largest if largest else apart
