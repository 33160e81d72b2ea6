"""A training with a partner: the loop of `nasprune.finetune`, and a strategy after every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from nasprune.common.processes import is_first
from nasprune.common.randomness import own_randomness, seed_all
from nasprune.common.states import lost_in_files
from nasprune.common.untouched import twin
from nasprune.data import DataSplits
from nasprune.data.load import check_fits
from nasprune.data.scales import variances
from nasprune.data.splits import size_of
from nasprune.train.augmenting import Augment, batch_change
from nasprune.train.fitness import check_augment, check_labels, check_trainable, classes_of
from nasprune.train.identity import settings_of
from nasprune.train.logs import ended, logged, logs_of
from nasprune.train.loops import quiet, start_fabric
from nasprune.train.mixing import mixing
from nasprune.train.nearness import Nearness
from nasprune.train.objective import Objective
from nasprune.train.partners import Partner
from nasprune.train.progress import OnEpoch, OnStep
from nasprune.train.recipe import Recipe
from nasprune.train.resume import SAVE_EVERY, Keeper, check_save_every
from nasprune.train.targets import AnyTask, check_task, task_of
from nasprune.train.team import steps_of
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
    task: AnyTask | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "32-true",
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
    out: Path | None = None,
    save_every: float = SAVE_EVERY,
    log: str | Sequence[str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Trains a copy of `model`, which the partner is given when it begins; returns what should be said.

    The last weights count; where the caller stops or the training diverges, those of the last whole epoch. Without `lr`
    the rate is that of a network as initialised: it has more to learn than after a refit.

    Args:
        partner, model, parts, recipe, and those that `nasprune.finetune` has as well: as there.
        out: folder for the state after every epoch, the partner's too; a training that was killed goes on there.
        settings: names and values that decide the training besides these arguments.

    Raises:
        InputError: as `nasprune.finetune`.
    """
    check_task(task)
    check_save_every(save_every)
    check_fits(model, parts, name=type(model).__name__)
    check_trainable(model)
    check_labels(model, parts, teacher is not None and recipe.soft_share == 1)
    check_augment(parts, augment)
    change = batch_change(augment)
    mixed = mixing(recipe.mix, classes_of(model, parts) if recipe.mix != "none" else 0)
    logs = logs_of(log) if is_first() else []
    on_step, on_epoch = logged(logs, on_step, on_epoch)
    with quiet(), own_randomness(model), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        seed_all(seed, model)
        fabric = start_fabric(device, precision, together=True)
        near = None
        if teacher is not None:
            dense = twin(teacher).to(fabric.device).eval().requires_grad_(False)
            mixed_precision = precision == "bf16-mixed"
            near = Nearness(
                dense, (), None, speaks=True, mixed=mixed_precision, variance=variances(dense, parts.validation)
            )
        keeper = Keeper(out, {})
        if out is not None:
            own = settings_of(model, teacher, parts, recipe, seed, augment, precision, task)
            keeper.settings = {**own, **(settings or {})}
        tuner = Tuner(model, recipe, Objective(recipe, near, task or task_of(parts.train, recipe.smoothing)), fabric)
        steps = steps_of(
            size_of(parts.train), recipe.batch_size, accumulate=recipe.accumulate, team_size=tuner.team.size
        )
        partner.begin(tuner.student, tuner.optimizer, recipe.epochs * steps)
        training = Training(
            tuner=tuner,
            recipe=recipe,
            top=recipe.rate(trained=False),
            parts=parts,
            task=task or task_of(parts.train),
            change=change,
            mixed=mixed,
            seed=seed,
            keeper=keeper,
            save_every=save_every,
            reference=model,
            on_epoch=on_epoch,
            on_step=on_step,
            should_stop=should_stop,
            partner=partner,
        )
        notes = training.run()[1]
    ended(logs)
    return (*notes, *lost_in_files(model, tuner.student))
