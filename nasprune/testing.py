"""What every plugin owes, as checks for its author's own tests; the plugins of nasprune pass the same ones.

Each check runs the plugin on a small residual network with a grouped convolution and a concatenation, and raises a
`PluginError` that says which duty is broken:

    from nasprune.testing import check_criterion

    def test_my_criterion():
        check_criterion(MyCriterion)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from nasprune.base import (
    Batch,
    ConsumerGram,
    Controller,
    Criterion,
    EvaluationTask,
    Evaluator,
    LayerUnits,
    OpScorer,
    SpaceBuilder,
)
from nasprune.calibration.scoring import WeightContext, score_all
from nasprune.common.duties import fail, named, twice
from nasprune.common.inputs import ExampleInputs
from nasprune.cost.budget import Budget
from nasprune.cost.flops import CostModel
from nasprune.criteria.l2 import L2
from nasprune.cut.selection import select
from nasprune.cut.stirred import distinct
from nasprune.cut.surgery import build as build_model
from nasprune.cut.trial_plans import half_plan
from nasprune.cut.tried import trial
from nasprune.errors import PlanError, PluginError
from nasprune.graph.model import CoupledGroup, ModelGraph
from nasprune.graph.program import operator
from nasprune.graph.rules import OpRule
from nasprune.run.exploration import CutCandidate
from nasprune.run.names import search_space
from nasprune.run.trace import trace
from nasprune.space.choices import Decision, SearchSpace
from nasprune.space.priced import PricedSpace
from nasprune.space.trials import Trial
from nasprune.sparse.checks import check_sparsifier as check_sparsifier
from nasprune.strategies.checks import check_strategy as check_strategy
from nasprune.supernet.score.task import ScoringTask
from nasprune.supernet.structure.sample import SampleSupernet, attachments, sample_structure

INPUT = (3, 8, 8)
CLASSES = 4
Result = TypeVar("Result")


class SampleNet(nn.Module):
    """A stem, residual blocks, a grouped convolution, a concatenation, a linear layer; (N, 3, 8, 8) -> (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.first = _Residual(16)
        self.second = _Residual(16)
        self.split = nn.Conv2d(16, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(24, CLASSES)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for value in self.state_dict().values():
                if value.is_floating_point():
                    value.copy_(
                        torch.rand(value.shape, generator=generator, device="cpu") - (0.5 if value.ndim > 1 else -0.5)
                    )

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(self.norm(self.stem(x)).relu()))
        logits: Tensor = self.head(torch.cat([x, self.split(x)], 1).mean((2, 3)))
        return logits


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (x + branch).relu()


class _Noise(Dataset[tuple[Tensor, int]]):
    def __init__(self, generator: torch.Generator) -> None:
        self._images = torch.randn(32, *INPUT, generator=generator, device="cpu")

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._images[index], index % CLASSES

    def __len__(self) -> int:
        return len(self._images)


def check_criterion(kind: Callable[[], Criterion]) -> None:
    """A criterion gives finite scores (width,), a function of weights, seed and data alone, and changes nothing.

    Only one that says `needs_data = True` is given data.

    Raises:
        PluginError: it does not.
    """
    model, graph = _sample()
    before = _values(model)
    data = _Noise(torch.Generator().manual_seed(1)) if kind().needs_data else None
    context = _KeptContext(model, graph, seed=5, data=data)
    first, second = twice(kind, lambda: score_all(graph, kind(), context))
    for group in graph.free_groups:
        if not torch.equal(first[group.name], second[group.name]):
            fail(kind, f"gives other scores for {group.name!r} when asked again; draw from `context.generator(group)`")
    if not context.intact() or not _same(before, _values(model)):
        fail(kind, "changes the tensors that it is shown; work on copies")


def check_controller(kind: Callable[..., Controller], *, trials: int = 60) -> None:
    """A controller proposes valid decisions, a function of the seed and of what it was told, until it has no more.

    Raises:
        PluginError: it does not.
    """
    problem = _problem(*_sample())
    first, second = twice(kind, lambda: _proposals(kind, problem, trials))
    if not first:
        fail(kind, "proposes nothing; the first `ask` must give a decision")
    if first != second:
        fail(kind, "proposes otherwise with the same seed and the same outcomes; a resumed search would go astray")


def check_evaluator(kind: Callable[[EvaluationTask], Evaluator]) -> None:
    """An evaluator gives finite scores, a function of the candidate alone, and leaves the dense model as it was.

    Raises:
        PluginError: it does not.
    """
    model, graph = _sample()
    before = _values(model)
    modes = [module.training for module in model.modules()]
    problem = _problem(model, graph)
    scores = score_all(graph, L2(), WeightContext(model, graph))
    generator = torch.Generator().manual_seed(1)
    calibration, validation = (_Noise(generator) for _ in range(2))
    evaluator = kind(EvaluationTask(graph, model, scores, problem, calibration, validation))
    rng = random.Random(0)
    decisions = [problem.space.largest(), *(problem.fit(problem.space.sample(rng), rng) for _ in range(3))]
    candidates = [CutCandidate(one, problem.costs([one])[0], graph, scores, model) for one in decisions]
    order = [candidates, candidates[::-1]]
    scored = twice(kind, lambda: [evaluator.evaluate(candidate) for candidate in order.pop()], may_draw=True)
    second, first = scored[0][::-1], scored[1]
    if not all(isinstance(score, float) and np.isfinite(score) for score in first):
        fail(kind, f"must give finite floats, got {first}")
    if first != second:
        fail(kind, f"scores the same candidates otherwise in another order: {first}, then {second}")
    if not _same(before, _values(model)) or modes != [module.training for module in model.modules()]:
        fail(kind, "changes the dense model; `candidate.model()` gives a copy to work on")


def check_space(build: SpaceBuilder) -> None:
    """A space builder offers what the graph can do: every decision can be built, and the graph stays as it was.

    Raises:
        PluginError: it does not.
    """
    model, graph = _sample()
    space = build(graph)
    if not isinstance(space, SearchSpace):
        fail(build, f"must give a SearchSpace, got {type(space).__name__}")
    if build(graph) != space:
        fail(build, "gives another space for the same graph; sort what comes from sets")
    free = {group.name: group for group in graph.free_groups}
    for choice in space.widths:
        if choice.name not in free:
            fail(build, f"offers {choice.name!r}, which is no free group")
        if choice.options[-1] != free[choice.name].width:
            fail(build, f"must offer the full width {free[choice.name].width} of {choice.name!r}")
    for name in [block.name for block in space.blocks]:
        if name not in {block.name for block in graph.free_blocks}:
            fail(build, f"offers {name!r}, which is no free block")
    scores = score_all(graph, L2(), WeightContext(model, graph))
    rng = random.Random(0)
    for decision in (space.largest(), space.smallest(), *(space.sample(rng) for _ in range(3))):
        try:
            small = build_model(model, graph, select(graph, scores, decision)).eval()
        except PlanError as error:
            raise PluginError(f"`{named(build)}` offers a decision that cannot be built: {error}") from error
        with torch.no_grad():
            small(torch.zeros(2, *INPUT, device="cpu"))
    frozen = replace(graph, groups=tuple(replace(group, frozen_because="a test") for group in graph.groups))
    if build(frozen).widths:
        fail(build, "offers the width of a frozen group")


def check_op_rule(kind: Callable[[], OpRule], model: nn.Module, example_inputs: ExampleInputs) -> None:
    """An op rule is used by `model`, and whatever it leaves free can be cut: the cut equals the masked dense model.

    Raises:
        PluginError: it does not. Give a model in which channels pass the operators of the rule.
    """
    rule, twin = kind(), distinct(model)
    graph = trace(twin, example_inputs, rules=[rule])
    used = {operator(node) for node in graph.program.nodes if node.op == "call_function"}
    if not used.intersection(rule.targets):
        fail(kind, f"has targets {list(rule.targets)}, but the model runs only {sorted(used)}")
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    reason = trial(twin, graph, plan).reason
    if reason:
        fail(kind, f"frees channels that cannot be cut: {reason}")


def check_op_scorer(kind: Callable[[], OpScorer]) -> None:
    """A scorer of operations gives finite scores (ops,) for every choice, a function of supernet, data and seed.

    It leaves no hooks behind, and unless it says `trains = True` the net is as it was. Only one that says
    `needs_data = True` is given images, only one that says `needs_weights = True` architecture weights.

    Raises:
        PluginError: it does not.
    """
    scorer = kind()
    structure = sample_structure(SampleSupernet().eval())
    if not scorer.needs_weights:
        structure = replace(structure, logits={}, mixed=tuple(replace(one, weights=None) for one in structure.mixed))
    generator = torch.Generator().manual_seed(1)
    data = [_images(generator) for _ in range(4)] if scorer.needs_data else []

    def run() -> dict[str, Tensor]:
        task = ScoringTask.on_copy(structure, data[:2], data[2:], seed=5)
        before, state = _values(task.net), attachments(task.net)
        found = dict(kind().score(task))
        if attachments(task.net) != state:
            fail(kind, "leaves hooks, modes or replaced methods on the supernet; take them off when done")
        if not scorer.trains and not _same(before, _values(task.net)):
            fail(kind, "changes the supernet's parameters or buffers; restore them, or say `trains = True`")
        return found

    first, second = twice(kind, run)
    if set(first) != {choice.name for choice in structure.choices}:
        fail(kind, f"must score the choices {[one.name for one in structure.choices]}, got {sorted(first)}")
    for choice in structure.choices:
        values = first[choice.name]
        if values.shape != (len(choice.ops),) or not values.isfinite().all() or values.requires_grad:
            fail(kind, f"must give {len(choice.ops)} finite numbers, detached, for {list(choice.ops)}, got {values}")
        if not torch.equal(values, second[choice.name]):
            fail(kind, f"gives other scores for {choice.name!r} when asked again; draw inside `repeatable(task)`")


class _KeptContext(WeightContext):
    """Remembers what it has shown, to see whether it was changed."""

    def __init__(
        self, model: nn.Module, graph: ModelGraph, *, seed: int, data: Dataset[tuple[Tensor, int]] | None
    ) -> None:
        super().__init__(model, graph, seed=seed, data=data)
        self._shown: list[tuple[Tensor, Tensor]] = []

    def rows(self, group: CoupledGroup) -> Iterator[Tensor]:
        return self._kept(super().rows(group))

    def columns(self, group: CoupledGroup) -> Iterator[Tensor]:
        return self._kept(super().columns(group))

    def kernels(self, group: CoupledGroup) -> Iterator[Tensor]:
        return self._kept(super().kernels(group))

    def scales(self, group: CoupledGroup) -> Iterator[Tensor]:
        return self._kept(super().scales(group))

    def layers(self) -> Sequence[LayerUnits]:
        found = super().layers()
        self._keep(*(tensor for layer in found for tensor in (layer.reads, layer.makes, layer.strength)))
        return found

    def activations(self, group: CoupledGroup) -> Iterator[Tensor]:
        return self._kept(super().activations(group))

    def gradients(self, group: CoupledGroup) -> Iterator[Tensor]:
        return self._kept(super().gradients(group))

    def fisher(self, group: CoupledGroup) -> Iterator[Tensor]:
        return self._kept(super().fisher(group))

    def grams(self, group: CoupledGroup) -> Iterator[ConsumerGram]:
        for gram in super().grams(group):
            self._keep(gram.weight, gram.covariance, gram.mean, gram.parts)
            yield gram

    def _kept(self, tensors: Iterator[Tensor]) -> Iterator[Tensor]:
        for tensor in tensors:
            self._keep(tensor)
            yield tensor

    def _keep(self, *tensors: Tensor) -> None:
        self._shown.extend((tensor, tensor.clone()) for tensor in tensors)

    def intact(self) -> bool:
        return all(torch.equal(shown, copy) for shown, copy in self._shown)


def _sample() -> tuple[nn.Module, ModelGraph]:
    model = SampleNet()
    return model, trace(model, torch.zeros(1, *INPUT, device="cpu"))


def _problem(model: nn.Module, graph: ModelGraph) -> PricedSpace:
    problem = PricedSpace(graph, search_space(graph, divisor=2), CostModel(graph), Budget.parse("60%"))
    problem = problem.with_scores(lambda: score_all(graph, L2(), WeightContext(model, graph)))
    return problem.with_damages(lambda: _harms(problem.space))


def _harms(space: SearchSpace) -> dict[str, dict[int, float]]:
    """Harms such as a measurement gives: 0 for keeping everything, more for keeping less."""
    return {
        choice.name: {option: (1 - option / choice.options[-1]) ** 2 for option in choice.options}
        for choice in space.choices
    }


def _proposals(kind: Callable[..., Controller], problem: PricedSpace, trials: int) -> list[Decision]:
    """What a fresh controller proposes; outcomes are made up from the decisions' digests."""
    controller = kind(problem, seed=11)
    asked: list[Decision] = []
    for index in range(trials):
        proposal = controller.ask()
        if proposal is None:
            break
        try:
            problem.space.check(proposal)
        except PlanError as error:
            raise PluginError(f"`{named(kind)}` proposes what the space does not hold: {error}") from error
        fitted = problem.fit(proposal, random.Random(index), grow=controller.fills)
        score = int(fitted.digest[:6], 16) / 16**6
        controller.tell(Trial(index, fitted, problem.costs([fitted])[0], score, 0.01 * index))
        asked.append(proposal)
    return asked


def _images(generator: torch.Generator) -> Batch:
    return torch.randn(8, *INPUT, generator=generator, device="cpu"), torch.arange(8, device="cpu") % CLASSES


def _values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _same(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())
