"""What a search does with calibration images: harms of options, and refits of candidates and of the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from nasprune.cut.plan import PrunePlan
from nasprune.graph.model import ModelGraph
from nasprune.harm.damage import Damages, damages
from nasprune.refit.recalibrate import (
    calibration_batches,
    calibration_inputs,
    calibration_set,
    image_limit,
    recalibrate,
)
from nasprune.refit.reconstruct import reconstruct
from nasprune.run.request import Request
from nasprune.space.choices import SearchSpace

DAMAGE_IMAGES = 512
DAMAGE_FLOPS = 300 * 10**9  # of dense runs that measuring damages may take
TRIAL_IMAGES = 256  # that a candidate is refitted on
REFIT_IMAGES = 1024  # that the result is refitted on
TOGETHER = 32  # images in a batch, where one batch cannot hold them all

Refit = Callable[[nn.Module, PrunePlan], object]


def harms(request: Request, graph: ModelGraph, space: SearchSpace, dense: int, scores: Mapping[str, Tensor]) -> Damages:
    """The harm of every option of the space, on as many images as `dense` FLOPs each allow."""
    assert request.calibration is not None
    most, methods = image_limit(graph), request.methods
    wanted = max(16, min(DAMAGE_IMAGES, DAMAGE_FLOPS // max(dense, 1), 16 * most))
    images = calibration_inputs(request.calibration, wanted, request.device)
    return damages(
        request.model,
        graph,
        space,
        scores,
        torch.split(images, min(128, most)),
        refit=methods.refits,
        mends=methods.reconstruct == "lstsq",
        seed=request.options.seed,
    )


def candidate_refit(request: Request, graph: ModelGraph) -> Refit | None:
    """What refits a candidate in place, on few images; `None` where nothing is to be refitted."""
    if request.calibration is None or not request.methods.refits:
        return None
    return partial(_refit, request, graph, _images(request, graph, TRIAL_IMAGES))


def refitted(request: Request, graph: ModelGraph, small: nn.Module, plan: PrunePlan) -> list[str]:
    """Fits the cut network to calibration images, in place; what should be said of it."""
    calibration = request.calibration
    if calibration is None:
        return []
    if not request.methods.refits:
        recalibrate(small, calibration_batches(calibration, request.device))
        return []
    return _refit(request, graph, _images(request, graph, REFIT_IMAGES), small, plan)


def _images(request: Request, graph: ModelGraph, count: int) -> Sequence[Tensor]:
    """Calibration images in one batch where the network can take them at once, else in several."""
    assert request.calibration is not None
    most = image_limit(graph)
    size = count if count <= most else min(most, TOGETHER)
    images = calibration_set(request.calibration, count, size, request.device)
    images[0]  # images that cannot be used are refused before anything is done with them
    return images


def _refit(
    request: Request, graph: ModelGraph, images: Sequence[Tensor], small: nn.Module, plan: PrunePlan
) -> list[str]:
    return reconstruct(request.model, small, graph, plan, images, request.methods.reconstruct)
