"""`nasprune.prune`: from a dense network to a small trained one, in one call.

Either a search and then fine-tuning, or a strategy that trains the network so that it can be cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nasprune.common.accepted import accepted
from nasprune.common.arguments import names, refused
from nasprune.common.inputs import ExampleInputs, Inputs
from nasprune.cost.budget import Budget, parse_budget
from nasprune.cost.latency import compare_latency
from nasprune.cost.units import number_of
from nasprune.cut.plan import PrunePlan
from nasprune.cut.surgery import build
from nasprune.cut.weight_masks import count_nonzeros
from nasprune.data import DataSplits, load_data
from nasprune.data.batches import has_labels
from nasprune.data.identity import of_code
from nasprune.data.load import DataSource, image_side
from nasprune.errors import InputError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph
from nasprune.models.initial import looks_initialised
from nasprune.registry import Plugins, with_keywords
from nasprune.run.report import LayerOutcome, SearchReport, Sparsity
from nasprune.run.result import SearchResult, outcomes, versions
from nasprune.run.search import search
from nasprune.strategies.partner import StrategyPartner
from nasprune.strategies.pruner import Pruned, Pruner, pruner
from nasprune.train.augmenting import Augment
from nasprune.train.finetune import finetune
from nasprune.train.fitness import training_parts
from nasprune.train.measures import accuracy
from nasprune.train.mixing import Mix
from nasprune.train.progress import OnEpoch, OnStep
from nasprune.train.recipe import Recipe
from nasprune.train.resume import SAVE_EVERY
from nasprune.train.targets import AnyTask, ModelTask, check_task
from nasprune.train.together import train_with

CLIP = 5.0  # norm of gradients beside a strategy, which are larger while it takes away
UNREFITTED = "not-refitted"
"""The network as the plan leaves it, with the weights of the dense one."""


@dataclass(frozen=True)
class Trained:
    """A small network that was trained, in eval mode; the plan, which replays on the dense one; and the report.

    `nasprune.save` takes it. report.measured has "validation accuracy NET" for the nets `dense`, `not-refitted`, `cut`
    (refitted, as the search gave it) and `fine-tuned`; after a strategy, whose cut changes nothing, for the first and
    the last.
    """

    model: nn.Module = field(repr=False)
    plan: PrunePlan = field(repr=False)
    graph: ModelGraph = field(repr=False)
    report: SearchReport


@torch.inference_mode(mode=False)
def prune(
    model: nn.Module,
    example_inputs: ExampleInputs,
    budget: str | Budget,
    *,
    data: DataSource,
    epochs: int,
    strategy: str | None = None,
    lr: float | None = None,
    batch_size: int = 64,
    distil: bool = True,
    accumulate: int = 1,
    mix: Mix = "none",
    augment: Augment | None = None,
    task: AnyTask | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    scope: str | None = None,
    space: str = "auto",
    space_options: Mapping[str, object] | None = None,
    seed: int = 0,
    device: str = "auto",
    plugins: Plugins = None,
    out: str | Path | None = None,
    save_every: float = SAVE_EVERY,
    log: str | Sequence[str] | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
    settings: Mapping[str, str] | None = None,
    **searching: Any,
) -> Trained:
    """A smaller network within a budget, trained on labels.

        small = nasprune.prune(dense, images[:1], "50%", data="digits", epochs=20, strategy="soft").model

    Args:
        model, example_inputs, budget, include, exclude, scope, space, space_options, plugins: as for
            `nasprune.search`, which leaves `model` as it is.
        data: as for `nasprune.finetune`, with labels. The test part is not looked at.
        epochs: of training: after the search, or with the strategy.
        strategy: name of a plugin, with options where wanted, such as "soft(asymptotic=True)"; `None` searches, and
            fine-tunes what was found. Widths are cut by a strategy, or weights with a budget of
            NNZ; blocks go by `gal` alone.
        lr, batch_size, accumulate, mix, augment, task, device, log, save_every, on_epoch, on_step, should_stop: as for
            `nasprune.finetune`. With a strategy the rate is 0.05 by default, and gradients are clipped at norm 5.
        distil: whether the dense network teaches, where it has been trained.
        seed: of the search, and of the training.
        out: folder for the trials of a search, and below it for the state of its training, in `finetuned`, or of that
            with a strategy, in `training`. What was killed goes on there, on the CPU to the same weights bit for bit.
        settings: further names and values that belong to this run, kept in the report.
        searching: other arguments of `nasprune.search`, where there is no strategy.

    Raises:
        UnknownNameError: there is no such strategy; the nearest are named. InputError: the data has no labels, or an
        argument cannot be used. BudgetError, TraceError, PluginError, VerificationError: as `nasprune.search`.
    """
    dense, goal = accepted(model), parse_budget(budget, zeros=True)
    recipe = Recipe(epochs=epochs, lr=lr, batch_size=batch_size, accumulate=accumulate, mix=mix)
    if strategy is not None:  # an average of weights is not at the zeros of a mask
        recipe = replace(recipe, average=0.0, clip=CLIP)
    check_strategy_named(strategy, plugins, searching)
    check_task(task)
    parts = load_data(data, seed=seed, size=image_side(Inputs.of(example_inputs, model)), model=dense)
    check_labelled(parts)
    training: dict[str, Any] = {
        "teacher": dense if distil and not isinstance(task, ModelTask) and not looks_initialised(dense) else None,
        "augment": augment,
        "task": task,
        "seed": seed,
        "device": device,
        "log": log,
        "save_every": save_every,
        "on_epoch": on_epoch,
        "on_step": on_step,
        "should_stop": should_stop,
    }
    cutting: dict[str, Any] = {
        "include": names("include", include),
        "exclude": names("exclude", exclude),
        "scope": scope,
        "space": space if strategy is None or space != "auto" else "widths",
        "space_options": space_options,
        "seed": seed,
        "plugins": plugins,
    }
    if strategy is None:
        more: dict[str, Any] = {**searching, "settings": settings, "out": out, "should_stop": should_stop}
        found = search(dense, example_inputs, goal, data=parts, **cutting, **more)
        return _tuned(found, dense, data, parts, recipe, out, training)
    own = training_parts(data, seed=seed, input_size=None, model=dense)
    below = Path(out) / "training" if out is not None else None
    return _with_strategy(
        dense, Inputs.of(example_inputs, dense), goal, own, recipe, strategy, cutting, training, settings, below
    )


def check_strategy_named(strategy: str | None, plugins: Plugins, searching: Mapping[str, object]) -> None:
    """Raises InputError unless there is such a strategy, and no option of a search that it would not look at."""
    if strategy is None:
        return
    if not isinstance(strategy, str):
        raise refused("strategy", "a name", strategy, "write for example strategy='soft'")
    with_keywords("strategies", strategy, plugins, ("task",))
    if searching:
        raise InputError(
            f"`{next(iter(searching))}` belongs to a search, in whose place the strategy {strategy!r} trains; leave "
            "one of the two out"
        )


def check_labelled(parts: DataSplits) -> None:
    """Raises InputError where no training image has a label."""
    if not has_labels(parts.train):
        raise InputError(
            f"training needs labels, and data {parts.name!r} has none; give labelled images, or search with "
            "polish=True (`--polish`), which needs none"
        )


def unrefitted(report: SearchReport, dense: nn.Module, graph: ModelGraph, plan: PrunePlan) -> dict[str, nn.Module]:
    """The network as the plan leaves it, with the weights of the dense one, by its name; none where it stayed so."""
    return {} if report.settings.get("reconstruct") == "none" else {UNREFITTED: build(dense, graph, plan).eval()}


def _tuned(
    found: SearchResult,
    dense: nn.Module,
    data: DataSource,
    parts: DataSplits,
    recipe: Recipe,
    out: str | Path | None,
    training: dict[str, Any],
) -> Trained:
    """What a search found, fine-tuned."""
    given = ("epochs", "lr", "batch_size", "accumulate", "mix")
    asked: dict[str, Any] = {name: getattr(recipe, name) for name in given}
    below = Path(out) / "finetuned" if out is not None else None
    tuned = finetune(found, data, out=below, **asked, **training)
    nets = {"dense": dense, **unrefitted(found.report, dense, found.graph, found.plan), "cut": found.model}
    measured = {**found.report.measured, **_reached({**nets, "fine-tuned": tuned}, parts, training["task"])}
    notes = (*found.report.notes, f"Fine-tuned: {number_of(recipe.epochs, 'epoch')} on {parts.name}.")
    return Trained(tuned, found.plan, found.graph, replace(found.report, measured=measured, notes=notes))


def _with_strategy(
    dense: nn.Module,
    inputs: Inputs,
    goal: Budget,
    parts: DataSplits,
    recipe: Recipe,
    strategy: str,
    cutting: dict[str, Any],
    training: dict[str, Any],
    settings: Mapping[str, str] | None,
    out: Path | None,
) -> Trained:
    """The network trained with the strategy, cut and proved."""
    started = time.monotonic()

    def made(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> Pruner:
        given = inputs.fitting(net).one_item(net)
        return pruner(net, given, goal, steps=steps, strategy=strategy, optimizer=optimizer, **cutting)

    partner = StrategyPartner(made)
    kind, _ = with_keywords("strategies", strategy, cutting["plugins"], ("task",))
    decided = {"strategy": strategy, "strategy's code": of_code(kind), "budget": str(goal), "inputs": str(inputs)}
    decided |= {name: str(value) for name, value in cutting.items() if name not in ("plugins", "seed")}
    notes = train_with(partner, dense, parts, recipe, out=out, settings=decided, **training)
    done = partner.pruner.finish()
    small = done.model.to(next((value.device for value in dense.parameters()), torch.device("cpu")))
    measured = _reached({"dense": dense, "fine-tuned": small}, parts, training["task"])
    both = [submodule(net, done.graph.scope) for net in (dense, small)]
    latency = compare_latency(both, done.graph.example_inputs)
    report = SearchReport(
        settings={
            "model": type(dense).__name__,
            "inputs": str(inputs),
            "budget": str(goal),
            "data": parts.name,
            "data split": parts.split,
            "normalisation": parts.normalisation,
            "strategy": strategy,
            "scope": cutting["scope"] or "all",
            "seed": str(cutting["seed"]),
            **recipe.words(),
            **(settings or {}),
        },
        budget=str(goal),
        dense=done.dense,
        cut=done.cut,
        score=measured["validation accuracy fine-tuned"],
        dense_score=measured["validation accuracy dense"],
        trials=1,
        seconds=time.monotonic() - started,
        groups=outcomes(done.graph, done.plan),
        dropped_blocks=done.plan.drop,
        proof=done.proof,
        measured={
            "latency_ms dense": latency[0],
            "latency_ms cut": latency[1],
            **measured,
            "change by the cut": done.change,
        },
        versions=versions(),
        sparsity=_sparsity(dense, done),
        notes=(
            f"Trained with the strategy {strategy} for {number_of(recipe.epochs, 'epoch')} on {parts.name}; the cut "
            f"changed outputs by {done.change:.1e} of the largest.",
            *done.notes,
            *notes,
        ),
    )
    return Trained(small, done.plan, done.graph, report)


def _sparsity(dense: nn.Module, done: Pruned) -> Sparsity | None:
    """Where the plan holds weights at zero."""
    masks = done.plan.masks
    layers = (LayerOutcome(name.rpartition(".")[0], mask.numel(), int(mask.sum())) for name, mask in masks.items())
    return Sparsity(count_nonzeros(dense), done.nonzeros, tuple(layers)) if masks else None


def _reached(nets: Mapping[str, nn.Module], parts: DataSplits, task: AnyTask | None) -> dict[str, float]:
    return {f"validation accuracy {name}": accuracy(net, parts.validation, task=task) for name, net in nets.items()}
