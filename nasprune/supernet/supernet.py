"""`nasprune.Supernet`: find the choices of any supernet, score their candidates, trim and discretise to a budget."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from nasprune.base import Batch, OpScorer
from nasprune.cost.units import percent
from nasprune.data import DataSplits, load_data
from nasprune.data.batches import batches, draw
from nasprune.data.load import PIXELS, DataSource
from nasprune.data.splits import size_of
from nasprune.errors import InputError
from nasprune.refit.recalibrate import calibration_batches, recalibrate
from nasprune.registry import Plugins
from nasprune.space.choices import OpChoice
from nasprune.supernet.checked import Settled, checked_scorer
from nasprune.supernet.find.choices import EdgeWeights, Group, Weights
from nasprune.supernet.genotype.spaces import Size, SupernetSpace
from nasprune.supernet.price.counting import Counter, Counts
from nasprune.supernet.price.limits import Limit
from nasprune.supernet.report.accuracy import accuracies
from nasprune.supernet.report.discrete import described
from nasprune.supernet.report.health import TrimReport, examined
from nasprune.supernet.report.latency import compared_times
from nasprune.supernet.score.naming import op_scorer
from nasprune.supernet.structure.limited import limited
from nasprune.supernet.structure.recognise import Names, recognise
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.train.training import tuned
from nasprune.supernet.trim.discrete import Architecture, check_network_affordable, discretised
from nasprune.supernet.trim.schedules import stages_of
from nasprune.supernet.trim.trimming import Data, check_affordable, scores_of, trim

BATCHES = 8
BATCH = 64
DEFAULT = "paths"
RE_ESTIMATED_NETWORK = "The batch norms of the network have statistics re-estimated on calibration images."
RE_ESTIMATED = "The batch norms of the trimmed supernet have statistics re-estimated on calibration images."


@dataclass(frozen=True)
class TrimResult:
    """A trimmed supernet. report: what was decided, beside the baselines, and how sound it looks."""

    supernet: Supernet
    report: TrimReport

    @property
    def model(self) -> nn.Module:
        """The smaller net with the weights it had, still trainable."""
        return self.supernet.net

    @property
    def choices(self) -> Mapping[str, tuple[str, ...]]:
        """Choice -> names of the candidates that stay."""
        return {choice.name: choice.ops for choice in self.supernet.choices}


@dataclass(frozen=True)
class Supernet:
    """A supernet with its choices. Its net is never changed: what is smaller is new."""

    structure: Structure

    @classmethod
    def from_model(
        cls,
        net: nn.Module,
        example_inputs: Tensor | tuple[Tensor, ...],
        choices: Sequence[str] | None = None,
        group: Group | None = None,
        weights: Weights | None = None,
        op_names: Names | None = None,
        space: SupernetSpace | None = None,
        edge_weights: EdgeWeights | None = None,
    ) -> Supernet:
        """Finds the mixed operations of any module.

        Args:
            net: the supernet; left exactly as it is.
            example_inputs: one tensor, batch first, of at least two items.
            choices: paths or globs of the modules that hold candidates: only these, recognised or not; a glob takes
                only what is seen to be mixed. By default what is recognised.
            group: gives each mixed operation (a `Place`: net, path, module, cell, cell_path, index, op_names) the name
                of its choice; equal names decide together. By default each decides alone, unless the framework says
                otherwise.
            weights: gives each mixed operation its architecture weights (ops,), before any softmax. By default the
                shares with which the net was seen to mix its candidates are taken.
            op_names: of the candidates, in order, or a function of a mixed operation that gives them.
            space: the family of cell networks that the supernet belongs to: names, groups, weights and genotypes.
            edge_weights: gives each mixed operation its share among the edges into its node, after any softmax, for
                `alpha(rule=alpha_beta)`. Read it from the `net` of the place, which may be a smaller copy.

        Raises:
            InputError: nothing was found, an argument does not fit what was found, or the net cannot be counted.
        """
        return cls(recognise(net, example_inputs, choices, group, weights, op_names, space, edge_weights))

    @property
    def net(self) -> nn.Module:
        return self.structure.net

    @property
    def choices(self) -> tuple[OpChoice, ...]:
        return self.structure.choices

    @property
    def counts(self) -> Counts:
        """What the supernet costs with all of its candidates, for one item."""
        return self.structure.counts

    def summary(self) -> str:
        """What was found and why, and what every candidate costs."""
        return self.structure.summary()

    def gated(self, gates: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Inside, the outputs of the candidates are multiplied by `gates[choice]` (ops,); nothing stays behind."""
        return self.structure.gated(gates)

    def keep(self, kept: Mapping[str, Sequence[str | int]]) -> Supernet:
        """A smaller supernet with only the candidates `kept`, by name or number; other choices keep everything.

        An empty list takes all candidates of a choice away; what then reads only zeros, or nobody hears, goes too.

        Raises:
            InputError: an unknown choice or candidate, or the output no longer depends on the input.
        """
        return Supernet(self.structure.keep(kept))

    def score(
        self,
        scorer: str | OpScorer = "auto",
        *,
        data: DataSource | None = None,
        seed: int = 0,
        plugins: Plugins = None,
    ) -> dict[str, dict[str, float]]:
        """Choice -> candidate -> what is lost without it, by the scorer. The supernet is left bit-identical.

        Raises:
            InputError: the scorer needs data or architecture weights, and there are none. PluginError: it fails.
        """
        splits = self._splits(data, seed)
        made = _scorer(scorer, plugins)
        found = scores_of(self.structure, made, _data(splits), seed)
        return {one.name: dict(zip(one.ops, found[one.name].tolist(), strict=True)) for one in self.choices}

    def trim(
        self,
        budget: str | None = None,
        scorer: str | OpScorer = "auto",
        keep_max: int | None = None,
        *,
        count: Counter = "fvcore",
        schedule: str | None = None,
        data: DataSource | None = None,
        seed: int = 0,
        plugins: Plugins = None,
        re_estimate: bool = True,
        check: int = 0,
        tune: int = 0,
        on_paths: bool = False,
    ) -> TrimResult:
        """A smaller supernet within a budget: the candidates worth most, chosen exactly; weights are inherited.

        Args:
            budget: for the supernet with the candidates that stay: "600MMACs", "600MFLOPs", "5MParams", "8ms", "60%";
                `None` leaves it to the schedule.
            scorer: name of a scorer of operations with options, or one. "auto" is `paths`, with data
                and without.
            keep_max: how many candidates of a choice may stay, 3 by default; the same as `schedule="topk(k=...)"`.
            count: what a budget without a unit, or a share, means: "fvcore", "macs", "params" or
                "latency": of one forward pass with the example inputs, measured on the device where the net lies.
            schedule: "topk(k=3)", "threshold(share=0.1)" or "progressive(stages=[5, 3], epochs=2)", which trains on
                data.
            data: a name, `DataSplits`, `Dataset`, `DataLoader` or (inputs, labels) pair.
            seed: fixes the result. plugins: folders of plugin files.
            re_estimate: whether the batch norms of the result get the statistics of calibration images, with data.
            check: how many small networks are trained on the data to see whether the scorer agrees with what trains
                well there; where it does not, the losses of single paths decide instead. 0 trusts the scorer.
            on_paths: whether the supernet was trained on single paths, so that a check needs to train no copy so.
            tune: epochs that the trimmed supernet is trained for, weights and architecture weights in turn.

        Raises:
            BudgetError: the budget does not parse, or the cheapest candidates are above it. InputError: another
            argument cannot be used. PluginError: the scorer fails. VerificationError: the result does not cost what was
            predicted.
        """
        started = time.monotonic()
        schedule = _schedule(schedule, keep_max)
        stages = stages_of(schedule)
        if data is None and (check or tune):
            raise InputError("`check` and `tune` train on images; give some with `data=` (`--data`), or leave them out")
        if check < 0 or tune < 0:
            raise InputError(f"`check` and `tune` must be at least 0, got {check} and {tune}")
        if data is None and any(stage.epochs for stage in stages):
            raise InputError(f"the schedule {schedule!r} trains between its stages; give data, or `epochs=0`")
        whole, limit = limited(self.structure, budget, count)
        check_affordable(whole, limit)
        splits = self._splits(data, seed)
        seen = _data(splits)
        made, name = _scorer(scorer, plugins), _name(scorer)
        found: tuple[str, ...] = ()
        if check and splits is not None:
            done = checked_scorer(
                whole, made, name, splits, seen, networks=check, seed=seed, plugins=plugins, on_paths=on_paths
            )
            made, name, found = done.scorer, done.name, done.notes
        train_on = partial(tuned, data=splits, seed=seed) if splits is not None else None
        trimmed = trim(whole, made, stages, limit, seen, seed, train_on)
        settings = {
            "scorer": name,
            "schedule": schedule,
            "data": splits.name if splits is not None else "none",
            "seed": str(seed),
        }
        report = examined(whole, trimmed, made, stages, limit, seen, settings, time.monotonic() - started)
        report = replace(report, notes=(*found, *report.notes))
        structure = trimmed.structure
        if train_on is not None and tune:
            structure = train_on(structure, tune)
            report = replace(report, notes=(*report.notes, _told(structure, seen, tune, seed)))
        elif splits is not None and re_estimate:
            recalibrate(structure.net, calibration_batches(splits.calibration, structure.inputs[0].device))
            report = replace(report, notes=(*report.notes, RE_ESTIMATED))
        if limit is not None and limit.counter == "latency":
            inputs = whole.inputs
            times = compared_times(whole.net, structure.net, inputs, inputs, structure.cost_of("latency"))
            report = report.timed(times, limit)
        return TrimResult(Supernet(structure), report)

    def discretise(
        self,
        budget: str | None = None,
        rule: str | None = None,
        *,
        scorer: str | OpScorer | None = None,
        count: Counter = "fvcore",
        size: Size | None = None,
        inherit: bool = True,
        data: DataSource | None = None,
        seed: int = 0,
        plugins: Plugins = None,
        re_estimate: bool = True,
    ) -> Architecture:
        """One operation per edge: the network with the greatest sum of scores within the budget, by an exact knapsack.

        Args:
            budget: for the network: "600MMACs", "600MFLOPs", "5MParams"; a share is of this supernet. `None` is none.
            rule: how architecture weights become scores: "darts", "no_none", "logit" or "alpha_beta"; short for
                `scorer="alpha(rule=...)"`.
            scorer: a scorer of operations, in place of `rule`; `paths` where neither is given.
            count: what a budget without a unit means.
            size: of the network, where the supernet has a `space`; by default that of the space's search.
            inherit: whether the network starts with the supernet's values where the shapes agree.
            re_estimate: whether its batch norms get the statistics of calibration images, with data of its size.

        Raises:
            BudgetError: the cheapest network is above the budget. InputError: an argument cannot be used.
        """
        if rule is not None and scorer is not None:
            raise InputError("`rule` and `scorer` both say how operations are ranked; give one of them")
        if size is not None and self.structure.space is None:
            raise InputError("`size` is of a space's network, and this supernet has no `space`; leave it out")
        started = time.monotonic()
        whole, limit = limited(self.structure, budget, count, table=self.structure.space is None)
        check_network_affordable(whole, limit, size)
        splits = self._splits(data, seed)
        chosen = f"alpha(rule={rule})" if rule is not None else scorer if scorer is not None else DEFAULT
        scores = scores_of(whole, _scorer(chosen, plugins), _data(splits), seed)
        found = discretised(whole, scores, limit, size, inherit=inherit)
        settings = {
            "scorer": _name(chosen),
            "data": splits.name if splits is not None else "none",
            "seed": str(seed),
        }
        found = described(whole, scores, found, limit, size, settings, time.monotonic() - started)
        if limit is not None and found.nanoseconds is not None:
            found = _timed(whole, found, limit)
        if splits is None or not re_estimate or not _fits(found, splits):
            return found
        recalibrate(found.model, calibration_batches(splits.calibration, self.structure.inputs[0].device))
        return replace(found, report=replace(found.report, notes=(*found.report.notes, RE_ESTIMATED_NETWORK)))

    def _splits(self, data: DataSource | None, seed: int) -> DataSplits | None:
        """The data; images of files are made as large as those of the example."""
        if data is None:
            return None
        example = self.structure.inputs[0]
        side = example.shape[-1] if example.ndim == 4 else PIXELS
        return load_data(data, seed=seed, size=side, model=self.net)


def _timed(whole: Structure, found: Architecture, limit: Limit) -> Architecture:
    """With the time that the network takes, on as many images as the supernet's example has."""
    own = whole.inputs
    if found.size is not None:
        shape = (len(own[0]), *found.size.input_shape[1:])
        own = (torch.randn(shape, generator=torch.Generator().manual_seed(0), device="cpu").to(own[0].device),)
    times = compared_times(whole.net, found.model.to(own[0].device), whole.inputs, own, found.nanoseconds or 0)
    report = found.report.timed(times, limit)
    return replace(found, report=report, notes=tuple(check.sentence for check in report.warnings))


def _fits(found: Architecture, splits: DataSplits) -> bool:
    """Whether the images are of the size that the network was made for."""
    return found.size is None or tuple(splits.input_shape) == tuple(found.size.input_shape[1:])


def _told(structure: Structure, data: Data, epochs: int, seed: int) -> str:
    plain, _ = accuracies(structure, data, seed)
    return f"After {epochs} more epochs the trimmed supernet is right on {percent(plain)} of the validation images."


def _schedule(schedule: str | None, keep_max: int | None) -> str:
    if schedule is not None and keep_max is not None:
        raise InputError("`schedule` and `keep_max` both say how many candidates may stay; give one of them")
    return schedule or f"topk(k={3 if keep_max is None else keep_max})"


def _name(scorer: str | OpScorer) -> str:
    if isinstance(scorer, OpScorer):
        return scorer.name if isinstance(scorer, Settled) else type(scorer).__name__
    return DEFAULT if scorer == "auto" else scorer


def _scorer(scorer: str | OpScorer, plugins: Plugins) -> OpScorer:
    return scorer if isinstance(scorer, OpScorer) else op_scorer(_name(scorer), plugins)


def _data(splits: DataSplits | None) -> Data:
    """Batches of at most 512 training and 512 validation images."""
    if splits is None:
        return Data()
    return Data(_batches(splits.train), _batches(splits.validation))


def _batches(part: Dataset[tuple[Tensor, int]]) -> list[Batch]:
    found = batches(part, BATCH, draw(size_of(part), BATCH * BATCHES))
    return [(images, labels) for images, labels in found if len(labels) > 1]
