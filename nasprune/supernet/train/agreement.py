"""Whether a scorer's view of networks agrees with what trains well on the user's own images: a few are trained.

Small networks of the supernet are trained by themselves, from scratch and for a short time, and their validation losses
are compared with the worths of their operations. Yang, Esperança & Carlucci 2020, "NAS evaluation is frustratingly
hard", arXiv:1912.12522, ask for such controls. A network is a single path of a copy of the supernet with new weights,
so that it has the supernet's own size and code.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn

from nasprune.common.losses import cross_entropy
from nasprune.common.untouched import twin
from nasprune.data import DataSplits
from nasprune.data.batches import batches
from nasprune.errors import InputError
from nasprune.supernet.score.paths import SinglePath, Site, draw_paths, on_path, sites
from nasprune.supernet.score.scoring import batch_statistics, seeded
from nasprune.supernet.score.surrogate import ranks
from nasprune.supernet.score.task import first_output
from nasprune.supernet.structure.structure import Structure

LR, CLIP, BATCH = 0.05, 5.0, 64
RESAMPLES = 1000
FEWEST = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Agreement:
    """correlation: Spearman's, of the sums of worths with minus the losses of networks; low, high: its 95 % bootstrap
    interval over the networks. networks: that were trained; losses: of each, on validation images; seconds: that they
    took."""

    correlation: float
    low: float
    high: float
    networks: tuple[SinglePath, ...]
    losses: tuple[float, ...]
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether worths are right more often than wrong, beyond doubt: the whole interval is above zero."""
        return self.low > 0

    def __str__(self) -> str:
        said = "agrees" if self.agrees else "does not agree beyond doubt"
        return (
            f"{said} with what trains well on these images: Spearman {self.correlation:+.2f} [{self.low:+.2f}, "
            f"{self.high:+.2f}] over {len(self.networks)} networks, trained from scratch in {self.seconds / 60:.1f} min"
        )


Worths = Mapping[str, Tensor]
"""Choice -> (ops,)."""


def agreement(
    structure: Structure,
    data: DataSplits,
    worths: Worths,
    *,
    networks: int,
    steps: int,
    seed: int,
    on_network: Callable[[int, int], None] | None = None,
) -> Agreement:
    """Trains networks of the supernet and compares their validation losses with the sums of their operations' worths.

    Args:
        networks: how many, at least 5; operations come equally often. steps: of SGD for each, on batches of 64.
        on_network: called after each with its number and how many there are.

    Raises:
        InputError: there are fewer than 5 networks, or a network's loss is not finite.
    """
    if networks < FEWEST or steps < 1:
        raise InputError(
            f"expected at least {FEWEST} networks to check by and 1 step for each, got {networks}, {steps}"
        )
    start = time.perf_counter()
    paths = draw_paths(structure.choices, networks, seed + 1)
    losses = []
    for number, loss in enumerate(stand_alone_losses(structure, data, paths, steps=steps, seed=seed), 1):
        losses.append(loss)
        if on_network is not None:
            on_network(number, len(paths))
    said = [sum(float(worths[name][op]) for name, op in path.items()) for path in paths]
    found = [-loss for loss in losses]
    rng = Random(seed)
    drawn = [[rng.randrange(len(paths)) for _ in paths] for _ in range(RESAMPLES)]
    again = sorted(_spearman([said[n] for n in some], [found[n] for n in some]) for some in drawn)
    low, high = again[round(0.025 * RESAMPLES)], again[round(0.975 * RESAMPLES) - 1]
    return Agreement(_spearman(said, found), low, high, tuple(paths), tuple(losses), time.perf_counter() - start)


def stand_alone_losses(
    structure: Structure, data: DataSplits, paths: Sequence[SinglePath], *, steps: int, seed: int
) -> Iterator[float]:
    """The validation loss of each path as a network of its own, after a short training from new weights.

    Global random states are afterwards as before.
    """
    net = twin(structure.net)
    device = structure.inputs[0].device
    places = sites(net, structure.mixed, structure.choices)
    images = list(batches(data.train, BATCH))
    held = [batch for batch in batches(data.validation, 4 * BATCH) if len(batch[1]) > 1]
    if not held:
        raise InputError(
            "networks are checked by two validation images at least, whose norms go by the batch; give more"
        )
    parts = [labels for _, labels in (*images, *held)]
    if any(not isinstance(labels, Tensor) or labels.is_floating_point() or labels.ndim > 1 for labels in parts):
        raise InputError("networks are checked by training on class numbers, one for each image; give such labels")
    for number, path in enumerate(paths):
        with seeded(seed + number, device):
            renew(net)
            _train(net, places, path, images, steps, seed + number, device)
            yield _loss(net, places, path, held, device)


def renew(net: nn.Module) -> None:
    """New values for all weights and statistics whose modules know how to make them."""
    for module in net.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()


def _train(
    net: nn.Module,
    places: Sequence[Site],
    path: SinglePath,
    images: Sequence[tuple[Tensor, Tensor]],
    steps: int,
    seed: int,
    device: torch.device,
) -> None:
    inputs, labels = (torch.cat([batch[k] for batch in images]) for k in (0, 1))
    weights = [one for one in net.parameters() if one.requires_grad]
    momentum = torch.optim.SGD(weights, LR, momentum=0.9, nesterov=True, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(seed)
    net.train()
    with torch.enable_grad(), on_path(places, path):
        for step in range(steps):
            for group in momentum.param_groups:
                group["lr"] = LR * (1 + math.cos(math.pi * step / steps)) / 2
            some = torch.randint(len(labels), (min(BATCH, len(labels)),), generator=generator, device="cpu")
            momentum.zero_grad(set_to_none=True)
            logits = first_output(net(inputs[some].to(device)))
            cross_entropy(logits.float(), labels[some].to(device)).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(weights, CLIP)
            momentum.step()
    momentum.zero_grad(set_to_none=True)
    net.eval()


def _loss(
    net: nn.Module,
    places: Sequence[Site],
    path: SinglePath,
    held: Sequence[tuple[Tensor, Tensor]],
    device: torch.device,
) -> float:
    total = 0.0
    with torch.no_grad(), on_path(places, path), batch_statistics(net):
        for images, labels in held:
            logits = first_output(net(images.to(device))).float()
            total += float(cross_entropy(logits, labels.to(device))) * len(labels)
    found = total / sum(len(labels) for _, labels in held)
    if not math.isfinite(found):
        raise InputError("a network's loss is not finite after its short training; check the scale of the images")
    return found


def _spearman(one: Sequence[float], other: Sequence[float]) -> float:
    first, second = (ranks(values) - (len(values) - 1) / 2 for values in (one, other))
    scale = float((first.square().sum() * second.square().sum()).sqrt())
    return float((first * second).sum()) / scale if scale else 0.0
