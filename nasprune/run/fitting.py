"""What a search does with calibration images: harms of options, and refits of candidates and of the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from nasprune.common.phases import Steps
from nasprune.common.shelf import Shelf
from nasprune.cut.plan import PrunePlan
from nasprune.cut.stirred import named_tensors
from nasprune.graph.model import ModelGraph
from nasprune.harm.damage import Damages, damages
from nasprune.refit.recalibrate import (
    calibration_batches,
    calibration_inputs,
    calibration_set,
    image_limit,
    recalibrate,
)
from nasprune.refit.reconstruct import SHARE, reconstruct, refit
from nasprune.refit.targets import Targets, targets_of
from nasprune.run.request import Request
from nasprune.run.sharing import state
from nasprune.space.choices import SearchSpace

DAMAGE_IMAGES = 512
DAMAGE_FLOPS = 300 * 10**9  # of dense runs that measuring damages may take
TRIAL_IMAGES = 256  # that a candidate is refitted on
REFIT_IMAGES = 1024  # that the result is refitted on
TOGETHER = 32  # images in a batch, where one batch cannot hold them all

Refit = Callable[[nn.Module, PrunePlan], object]


def harms(
    request: Request, graph: ModelGraph, space: SearchSpace, dense: int, scores: Mapping[str, Tensor], on_step: Steps
) -> Damages:
    """The harm of every option of the space, on as many images as `dense` FLOPs each allow."""
    methods = request.methods
    return damages(
        request.model,
        graph,
        space,
        scores,
        harm_batches(request, graph, dense),
        refit=methods.refits,
        mends=methods.reconstruct == "lstsq",
        seed=request.options.seed,
        variance=request.variance,
        on_step=on_step,
    )


def harm_batches(request: Request, graph: ModelGraph, dense: int) -> Sequence[Tensor]:
    """The calibration images that harms are measured on, as many as `dense` FLOPs each allow."""
    assert request.calibration is not None
    most = image_limit(graph)
    wanted = max(16, min(DAMAGE_IMAGES, DAMAGE_FLOPS // max(dense, 1), 16 * most))
    return torch.split(calibration_inputs(request.calibration, wanted, request.device), min(128, most))


@dataclass(frozen=True)
class _Fitted:
    """What a refit on all images gave: the network's tensors by name, and what should be said."""

    plan: PrunePlan
    values: Mapping[str, Tensor]
    notes: list[str]

    def serves(self, plan: PrunePlan) -> bool:
        return self.plan.keep == plan.keep and self.plan.drop == plan.drop


class CandidateRefit:
    """Refits candidates in place, on few images; the dense network runs on them once for all candidates.

    Where one trial is all there is, it is refitted on as many images as the result, which is that network then.
    """

    def __init__(self, request: Request, graph: ModelGraph) -> None:
        self._request, self._graph = request, graph
        self._only = request.limits.trials == 1
        self._images = refit_images(request, graph, TRIAL_IMAGES)
        self._fitted: _Fitted | None = None

    def __call__(self, small: nn.Module, plan: PrunePlan) -> list[str]:
        if not (plan.keep or plan.drop):
            return []
        if not self._only:
            request = self._request
            method, memory = request.methods.reconstruct, request.options.memory
            return refit(request.model, small, self._graph, plan, self._targets, method, memory=memory)
        notes = self._on_all(small, plan)
        values = {name: value.detach().clone() for name, value in named_tensors(small).items()}
        self._fitted = _Fitted(plan, values, notes)
        return notes

    def result(self, small: nn.Module, plan: PrunePlan) -> list[str]:
        """Refits what the search has found, in place."""
        if self._fitted is None or not self._fitted.serves(plan):
            return self._on_all(small, plan)
        with torch.no_grad():
            for name, value in named_tensors(small).items():
                value.copy_(self._fitted.values[name])
        return self._fitted.notes

    def _on_all(self, small: nn.Module, plan: PrunePlan) -> list[str]:
        request, graph = self._request, self._graph
        shared, memory, method = request.options.shared, request.options.memory, request.methods.reconstruct
        with request.phases.phase("refitting") as step:
            images = refit_images(request, graph, REFIT_IMAGES)
            if not shared.several or not (plan.keep or plan.drop):
                return reconstruct(request.model, small, graph, plan, images, method, memory=memory, on_step=step)
            targets = shared.once(
                ("targets", state(graph)),
                lambda: targets_of(request.model, graph, images, Shelf(memory // SHARE), on_step=step),
            )
            return refit(request.model, small, graph, plan, targets, method, memory=memory, on_step=step)

    @cached_property
    def _targets(self) -> Targets:
        shelf = Shelf(self._request.options.memory // SHARE)
        return targets_of(self._request.model, self._graph, self._images, shelf)


def candidate_refit(request: Request, graph: ModelGraph) -> CandidateRefit | None:
    """What refits candidates and the result; `None` where nothing is to be refitted."""
    if request.calibration is None or not request.methods.refits:
        return None
    return CandidateRefit(request, graph)


def fitted(request: Request, small: nn.Module, plan: PrunePlan, refit: CandidateRefit | None) -> list[str]:
    """Fits the cut network to calibration images, in place; what should be said of it. refit: of its graph."""
    if refit is not None:
        return refit.result(small, plan)
    if request.calibration is not None and not request.methods.refits:
        recalibrate(small, calibration_batches(request.calibration, request.device))
    return []


def refit_images(request: Request, graph: ModelGraph, count: int) -> Sequence[Tensor]:
    """Calibration images in one batch where the network can take them at once, else in several."""
    assert request.calibration is not None
    most = image_limit(graph)
    size = count if count <= most else min(most, TOGETHER)
    images = calibration_set(request.calibration, count, size, request.device)
    images[0]  # images that cannot be used are refused before anything is done with them
    return images
