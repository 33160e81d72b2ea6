"""Single paths, ranked without training: random networks of the supernet are compared by two zero-cost proxies, and a
regression on the operations that they have tells what each operation is worth.

    score(o) = effect of o on  q(rank(NASWOT) + rank(SynFlow))  over random paths, less the smallest in its choice

q gives normal quantiles of ranks, of which effects that add up explain more: fewer selections hang on the draw.

NASWOT (Mellor et al. 2021, arXiv:2006.04647): log det of the kernel of ReLU codes of a batch, batch norms by the batch.
SynFlow (Tanaka et al. 2020, arXiv:2006.05467): the sum of |w dR/dw| over all weights, see `synflow`. A linear model
that spreads the quality of whole networks over their operations is what predictors of accuracy start from (Wen et al.
2020, arXiv:1912.00848); the sum of these two proxies was chosen on NAS-Bench-201, see the documentation. NASWOT takes
noise for something that tells images apart, so operations whose output changes with the random numbers alone come last.

Only the drawn operation of a choice runs, alone for the mixture, so a path costs what its network would. The weights
are those of the supernet, trained or not. Operations that connect nothing are not drawn.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from nasprune import (
    InputError,
    OpChoice,
    OpScorer,
    OpTask,
    codes_along,
    draw_paths,
    flows_along,
    main_effects,
    normal_scores,
    ranks,
    unlabelled_images,
    without_noise,
)

PROXIES = ("naswot", "synflow")
MANY, FEW, WORK = 16, 8, 5e10
LEAST, MOST = 200, 800


class Paths(OpScorer):
    """Effects of operations on the ranks of random single paths; needs no labels, and no data.

    paths: how many are drawn, so that each operation of a choice comes equally often; fewer where there are fewer. 0 is
    as many as cost 5e10 FLOPs on 16 images, at least 200 and at most 800: which paths are drawn matters less, the more
    they are. proxies: whose ranks are added, "naswot+synflow", or one of the two. images: of the batch, at most; 0 is
    16, or 8 where the drawn operations would cost more than 5e10 FLOPs on these.
    """

    needs_data: ClassVar[bool] = False

    def __init__(self, *, paths: int = 0, proxies: str = "naswot+synflow", images: int = 0) -> None:
        self._proxies = proxies.split("+")
        if not set(self._proxies) <= set(PROXIES) or len(set(self._proxies)) < len(self._proxies):
            raise InputError(f"`proxies` must be some of {', '.join(PROXIES)}, joined by +, got {proxies!r}")
        if paths < 0 or paths == 1 or images < 0 or images == 1:
            raise InputError(f"expected at least 2 `paths` and 2 `images` (0: as fits), got {paths} and {images}")
        self._paths, self._images = paths, images

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        work = sum(_mean_cost(task, choice) for choice in task.choices)
        paths = draw_paths(task.choices, self._paths or _fitting(work), task.seed)
        total = torch.zeros(len(paths), dtype=torch.float64, device="cpu")
        if "naswot" in self._proxies:
            many = work * len(paths) * MANY <= WORK
            inputs = unlabelled_images(task, self._images or (MANY if many else FEW))
            total += ranks(codes_along(task, paths, inputs))
        if "synflow" in self._proxies:
            total += ranks(flows_along(task, paths))
        return without_noise(main_effects(task.choices, paths, normal_scores(total)), task.noise())


def _mean_cost(task: OpTask, choice: OpChoice) -> float:
    """FLOPs of a drawn operation."""
    return float(task.cost(choice)[list(choice.connecting)].mean()) if choice.connecting else 0.0


def _fitting(work: float) -> int:
    """How many paths keep the work of large supernets within a minute. work: of one, FLOPs for an image."""
    return int(min(MOST, max(LEAST, WORK / (work * MANY)))) if work else MOST
