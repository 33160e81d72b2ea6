"""Everything that decides what a search gives, in words: what a record of trials is resumed with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from nasprune.common.inputs import Inputs
from nasprune.common.randomness import own_randomness, seed_all
from nasprune.cost.budget import Budget
from nasprune.cost.units import number_of
from nasprune.data import DataSplits, identity
from nasprune.evaluators.function import OwnFunction
from nasprune.refit.reconstruct import MEMORY
from nasprune.registry import Plugins
from nasprune.run.methods import Methods
from nasprune.run.sharing import Shared


@dataclass(frozen=True)
class Options:
    """The arguments of `nasprune.search` besides the model, its inputs, the budget and the methods."""

    seed: int
    trials: int | None
    time_limit: float | None
    plugins: Plugins
    scope: str | None
    space: Mapping[str, object]
    settings: Mapping[str, str] = field(default_factory=dict)
    should_stop: Callable[[], bool] | None = None
    allow_chance: bool = False
    polish: bool | None = None
    out: Path | None = None
    threads: int | None = None
    batch: int = 1
    runtime: str = "eager"
    memory: int = MEMORY
    shared: Shared = field(default_factory=Shared)


def settings_of(
    model: nn.Module,
    inputs: Inputs,
    goal: Budget,
    methods: Methods,
    data: DataSplits | None,
    options: Options,
) -> dict[str, str]:
    chosen = {
        "model": type(model).__name__,
        "weights": identity.of_model(model),
        "inputs": str(inputs),
        "budget": str(goal),
        "data": data.name if data is not None else "none",
        **({"data split": data.split, "normalisation": data.normalisation} if data is not None else {}),
        **methods.names,
        **{f"space {name}": str(value) for name, value in options.space.items()},
        "scope": options.scope or "all",
        "seed": str(options.seed),
        **({"latency": _latency(options)} if goal.limits_latency or _timed_otherwise(options) else {}),
        **options.settings,
    }
    if data is not None:
        with own_randomness(model):  # the same for the same data, with random transforms too
            seed_all(options.seed, model)
            chosen["images"] = identity.of_data(data)
    if issubclass(methods.evaluator, OwnFunction):
        chosen["evaluator's code"] = identity.of_code(methods.evaluator.function)
    return chosen


def _timed_otherwise(options: Options) -> bool:
    return (options.batch, options.threads, options.runtime) != (1, None, "eager")


def _latency(options: Options) -> str:
    return f"batch {options.batch}, {_threads(options)}{_by(options)}"


def _threads(options: Options) -> str:
    return "torch's threads" if options.threads is None else number_of(options.threads, "thread")


def _by(options: Options) -> str:
    return "" if options.runtime == "eager" else f", {options.runtime}"
