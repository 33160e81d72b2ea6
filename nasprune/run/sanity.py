"""Whether the dense network knows the images it is given: no better than chance, or right on all of them.

A search on data ranks networks by what they make of it. Where the images are normalised otherwise than in training, or
labels are numbered in another order, every network is as bad as the dense one, and the search would not notice.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from nasprune.common.calls import main_output
from nasprune.common.untouched import undisturbed
from nasprune.cost.units import percent
from nasprune.data import DataSplits
from nasprune.data.batches import batches, draw
from nasprune.data.splits import size_of
from nasprune.errors import InputError
from nasprune.models.initial import looks_initialised

FIRST = 64
"""Images that settle the question for most networks."""
MOST = 512
KAPPA = 0.15
"""Up to which a classifier counts as near chance: on ten classes 23 % of the answers right."""
CAUSES = (
    "the images are not normalised as in training, their size is another than in training (--input-size, "
    "input_size=), labels are numbered in another order, or the weights are not the trained ones"
)


def check_not_at_chance(model: nn.Module, data: DataSplits, device: torch.device) -> None:
    """Raises InputError where a trained classifier is about as often right as guesses of its own would be.

    Nothing is said of networks that look as initialised, of other outputs than (n, classes), and of images without
    labels.
    """
    if looks_initialised(model):
        return
    counts = _guesses(model, data, device, FIRST)
    if counts is not None and _near_chance(counts):
        counts = _guesses(model, data, device, MOST)
    if counts is None or not _near_chance(counts):
        return
    total = int(counts.sum())
    kinds = int((counts.sum(1) > 0).sum())
    if kinds == 1:
        raise InputError(
            f"all {total} images of data {data.name!r} that were looked at have the same label, so that accuracy says "
            "nothing; give images of several classes, or go on with allow_chance=True (--allow-chance)"
        )
    right, guessed = _rates(counts)
    raise InputError(
        f"the dense network is right on {percent(right)} of {total} images of data {data.name!r}, where its answers "
        f"would be right on {percent(guessed)} by chance; likely causes: {CAUSES}; mend that, or go on "
        "with allow_chance=True (--allow-chance)"
    )


def _guesses(model: nn.Module, data: DataSplits, device: torch.device, most: int) -> Tensor | None:
    """How often each answer (columns) came for each label (rows) on about `most` images.

    `None` where the outputs are not (n, classes) or the labels not class numbers (n,).
    """
    counts: Tensor | None = None
    with undisturbed(model):
        for part in (data.validation, data.calibration, data.train):
            left = most - (int(counts.sum()) if counts is not None else 0)
            for images, labels in batches(part, 64, draw(size_of(part), max(0, left))):
                found = main_output(model(images.to(device)))
                if found is None or found.ndim != 2 or found.shape[1] < 2:
                    return None
                if not isinstance(labels, Tensor) or labels.shape != found.shape[:1]:
                    return None
                if labels.is_floating_point():
                    return None
                classes = found.shape[1]
                known = (labels >= 0) & (labels < classes)
                pairs = labels[known].long() * classes + found.argmax(1).cpu()[known]
                seen = torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)
                counts = seen if counts is None else counts + seen
    return counts if counts is not None and bool(counts.any()) else None


def _rates(counts: Tensor) -> tuple[float, float]:
    """The share of right answers, and what it would be if answers and labels had nothing to do with each other."""
    total = float(counts.sum())
    right = float(counts.diagonal().sum()) / total
    guessed = float((counts.sum(0).double() * counts.sum(1).double()).sum()) / total**2
    return right, guessed


def _near_chance(counts: Tensor) -> bool:
    """Whether the share of right answers is within two standard errors of what chance gives, or hardly above it.

    Above it is counted as Cohen 1960 does (kappa): 0 is chance, 1 is always right.
    """
    right, guessed = _rates(counts)
    unsure = 2 * sqrt(guessed * (1 - guessed) / float(counts.sum()))
    return right <= guessed + max(unsure, KAPPA * (1 - guessed))
