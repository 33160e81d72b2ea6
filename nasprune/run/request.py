"""What a search was asked for, resolved and checked once, before anything is traced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset

from nasprune.common.inputs import ExampleInputs, Inputs
from nasprune.common.phases import Phases
from nasprune.common.untouched import twin
from nasprune.controllers.auto import Auto
from nasprune.cost.budget import Budget, parse_budget
from nasprune.data import DataSplits, load_data
from nasprune.data.load import DataSource, image_side
from nasprune.data.scales import variances
from nasprune.data.splits import size_of
from nasprune.evaluators.importance import Importance
from nasprune.evaluators.measured import Measured
from nasprune.run.checks import check_images, check_limits, check_options, check_weights
from nasprune.run.exploration import Limits, Progress
from nasprune.run.methods import Methods, Names, looked_up
from nasprune.run.sanity import check_not_at_chance
from nasprune.run.settings import Options, settings_of
from nasprune.run.spaces import Spaces, spaces_of, zero_method, zero_settings
from nasprune.sparse.contract import Sparsifier

TRIALS_AUTO = 1  # of the controller `auto`: the knapsack's decision alone
TRIALS_WITH_DATA = 100
TRIALS_WITHOUT_DATA = 1000
FEW_IMAGES = 1024  # below which the training images calibrate, too


@dataclass(frozen=True)
class Request:
    """What belongs to one run.

    original: the user's model, which is never run. model: a twin of it, to be run as often as needed. inputs: of a
    batch one item. settings: everything that decides the result, in words. phases: what each part of it costs.
    spaces: of structure and of zeros; sparsifier: which weights are zero, where some are to be.
    """

    original: nn.Module
    model: nn.Module
    inputs: Inputs
    budget: Budget
    methods: Methods
    data: DataSplits | None
    options: Options
    limits: Limits
    settings: Mapping[str, str]
    on_progress: Callable[[Progress], None] | None
    phases: Phases = field(default_factory=Phases)
    spaces: Spaces = field(default_factory=Spaces)
    sparsifier: Sparsifier | None = None

    @property
    def device(self) -> torch.device:
        return next((value.device for value in self.model.parameters()), torch.device("cpu"))

    @cached_property
    def variance(self) -> Tensor | None:
        """That of the outputs where these are numbers, (outputs,); `None` for classes."""
        return variances(self.model, self.data.validation) if self.data is not None else None

    @property
    def polish_until(self) -> float | None:
        """Seconds from the beginning of the search until which the refitted network is polished; `None` for not at all.

        It is where it was asked for, without an end, or where a time is given to be made use of.
        """
        limit = self.options.time_limit if _spends_time(self.options, self.methods) else None
        wanted = self.options.polish if self.options.polish is not None else limit is not None
        return None if not wanted else inf if limit is None else limit

    @cached_property
    def calibration(self) -> Dataset[tuple[Tensor, int]] | None:
        """The calibration images, and the training images where these are few; never validation or test images."""
        if self.data is None:
            return None
        few = size_of(self.data.calibration) < FEW_IMAGES
        return ConcatDataset([self.data.calibration, self.data.train]) if few else self.data.calibration


def resolved(
    model: nn.Module,
    example_inputs: ExampleInputs,
    budget: str | Budget,
    data: DataSource | None,
    names: Names,
    options: Options,
    on_progress: Callable[[Progress], None] | None,
    phases: Phases,
) -> Request:
    """The request of a search; arguments and errors are those of `nasprune.search`."""
    goal = parse_budget(budget, latency=True, zeros=True)
    check_limits(options.trials, options.time_limit)
    check_options(options.seed, options.scope)
    names.check()
    spaces = spaces_of(names.space, goal, options.space)
    structure = names.space if spaces.zeros is None else spaces.structure or "auto"
    methods = looked_up(replace(names, space=structure), has_data=data is not None, plugins=options.plugins)
    sparsifier = zero_method(names.sparsifier, spaces, has_data=data is not None, plugins=options.plugins)
    inputs = Inputs.of(example_inputs, model)
    splits = load_data(data, seed=options.seed, size=image_side(inputs), model=model) if data is not None else None
    copied = twin(model)
    inputs = inputs.fitting(copied).one_item(copied)
    if splits is not None:
        check_images(splits, inputs)
    check_weights(model)
    if splits is not None and inputs.tensors[0].is_floating_point():
        splits = splits.in_type(inputs.tensors[0].dtype)
    if splits is not None and methods.evaluator.reads_labels and not options.allow_chance:
        check_not_at_chance(copied, splits, inputs.device)
    return Request(
        original=model,
        model=copied,
        inputs=inputs,
        budget=goal,
        methods=methods,
        data=splits,
        options=options,
        limits=_limits(options, methods),
        settings=settings_of(model, inputs, goal, methods, splits, options)
        | zero_settings(names, spaces)
        | _polish_settings(options, methods),
        on_progress=on_progress,
        phases=phases,
        spaces=spaces,
        sparsifier=sparsifier,
    )


def _spends_time(options: Options, methods: Methods) -> bool:
    """Whether a limit of time is there for polishing: trials beyond the first decision of `auto` gain nothing.

    They do not by the divergence from the dense network (`make bench-trials`), and polishing does. Where an evaluator
    of the user's own decides, trials may find something else.
    """
    limited = options.time_limit is not None and options.trials is None and options.polish is not False
    return limited and issubclass(methods.controller, Auto) and issubclass(methods.evaluator, Measured | Importance)


def _polish_settings(options: Options, methods: Methods) -> dict[str, str]:
    if _spends_time(options, methods):
        return {"polish": "in the time that is left"}
    return {"polish": "yes"} if options.polish else {}


def _limits(options: Options, methods: Methods) -> Limits:
    if _spends_time(options, methods):
        return Limits(TRIALS_AUTO, options.time_limit, options.should_stop)
    if options.trials is not None or options.time_limit is not None:
        return Limits(options.trials, options.time_limit, options.should_stop)
    if issubclass(methods.controller, Auto):
        return Limits(TRIALS_AUTO, None, options.should_stop)
    trials = TRIALS_WITH_DATA if methods.evaluator.needs_data else TRIALS_WITHOUT_DATA
    return Limits(trials, None, options.should_stop)
