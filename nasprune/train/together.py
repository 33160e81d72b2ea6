"""A training with a partner: the loop of `nasprune.finetune`, and a strategy after every step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from nasprune.common.randomness import own_randomness, seed_all
from nasprune.common.untouched import twin
from nasprune.data import DataSplits
from nasprune.data.load import check_fits
from nasprune.data.splits import size_of
from nasprune.train.augmenting import Augment, batch_change
from nasprune.train.fitness import check_augment, check_labels, check_trainable
from nasprune.train.loops import quiet, start_fabric, steps_of
from nasprune.train.nearness import Nearness
from nasprune.train.objective import Objective
from nasprune.train.partners import Partner
from nasprune.train.progress import OnEpoch, OnStep
from nasprune.train.recipe import Recipe
from nasprune.train.resume import Keeper
from nasprune.train.targets import TrainingTask, task_of
from nasprune.train.training import Training
from nasprune.train.tuner import Tuner


def train_with(
    partner: Partner,
    model: nn.Module,
    parts: DataSplits,
    recipe: Recipe,
    *,
    teacher: nn.Module | None = None,
    augment: Augment | None = None,
    task: TrainingTask | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "32-true",
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[str, ...]:
    """Trains a copy of `model`, which the partner is given when it begins; returns what should be said.

    The last weights count; where the caller stops or the training diverges, those of the last whole epoch. Without `lr`
    the rate is that of a network as initialised: it has more to learn than after a refit. Nothing is kept on the disk.

    Raises:
        InputError: as `nasprune.finetune`.
    """
    check_fits(model, parts, name=type(model).__name__)
    check_trainable(model)
    check_labels(model, parts, teacher is not None and recipe.soft_share == 1)
    check_augment(parts, augment)
    change = batch_change(augment)
    with quiet(), own_randomness(model), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        seed_all(seed, model)
        fabric = start_fabric(device, precision)
        near = None
        if teacher is not None:
            dense = twin(teacher).to(fabric.device).eval().requires_grad_(False)
            near = Nearness(dense, (), None, speaks=True, mixed=precision == "bf16-mixed")
        tuner = Tuner(model, recipe, Objective(recipe, near, task or task_of(parts.train, recipe.smoothing)), fabric)
        partner.begin(tuner.student, tuner.optimizer, recipe.epochs * steps_of(size_of(parts.train), recipe.batch_size))
        training = Training(
            tuner=tuner,
            recipe=recipe,
            top=recipe.rate(trained=False),
            parts=parts,
            task=task or task_of(parts.train),
            change=change,
            seed=seed,
            keeper=Keeper(None, {}),
            reference=model,
            on_epoch=on_epoch,
            on_step=on_step,
            should_stop=should_stop,
            partner=partner,
        )
        return training.run()[1]
