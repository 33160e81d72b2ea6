"""Training a network, from scratch or after a cut, with its labels and if wanted with a teacher.

The rate rises linearly, then falls as half a cosine (Loshchilov, Hutter 2017, arXiv:1608.03983, without restarts); what
is returned is an exponential average of the weights. A network that was refitted in closed form starts near an optimum,
which a high rate destroys: without `lr` the rate is low for a network that has learned something already, and where the
loss explodes all the same, training goes back to the last good epoch with a tenth of the rate.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from nasprune.common.accepted import accepted
from nasprune.common.arguments import path, refused, whole_number
from nasprune.common.processes import is_first
from nasprune.common.randomness import own_randomness, seed_all
from nasprune.common.states import lost_in_files
from nasprune.common.untouched import twin
from nasprune.cut.weight_masks import WeightMasks
from nasprune.data.load import DataSource, check_fits
from nasprune.data.scales import variances
from nasprune.data.splits import DataSplits
from nasprune.errors import InputError
from nasprune.graph.capture import submodule
from nasprune.models.initial import looks_initialised
from nasprune.models.weights import copy_into
from nasprune.train.augmenting import Augment, batch_change
from nasprune.train.fitness import (
    check_augment,
    check_labels,
    check_teacher,
    check_trainable,
    classes_of,
    training_parts,
)
from nasprune.train.found import Found, as_found
from nasprune.train.identity import settings_of
from nasprune.train.logs import ended, logged, logs_of
from nasprune.train.loops import quiet, start_fabric
from nasprune.train.mixing import Mix, mixing
from nasprune.train.nearness import Nearness
from nasprune.train.objective import Objective
from nasprune.train.progress import OnEpoch, OnStep
from nasprune.train.recipe import Choice, Optimizer, Recipe
from nasprune.train.resume import SAVE_EVERY, Keeper, check_save_every
from nasprune.train.taps import check_dense, taps
from nasprune.train.targets import AnyTask, check_task, task_of
from nasprune.train.training import Training
from nasprune.train.tuner import Tuner


@torch.inference_mode(mode=False)
def finetune(
    model: nn.Module | Found,
    data: DataSource,
    *,
    epochs: int = 10,
    lr: float | None = None,
    optimizer: Optimizer = "sgd",
    batch_size: int = 64,
    teacher: nn.Module | None = None,
    temperature: float = 4.0,
    soft_share: float = 0.9,
    feature_share: float | None = None,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    warmup: float = 0.1,
    smoothing: float = 0.0,
    average: float = 0.98,
    clip: float = 1.0,
    choose: Choice = "last",
    accumulate: int = 1,
    mix: Mix = "none",
    augment: Augment | None = None,
    task: AnyTask | None = None,
    masks: Mapping[str, Tensor] | None = None,
    input_size: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "32-true",
    out: str | Path | None = None,
    save_every: float = SAVE_EVERY,
    log: str | Sequence[str] | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> nn.Module:
    """A new network with the averaged weights of the last epoch; `model` is left as it is.

    Where validation images, which the network did not learn by heart before, say that the start was better by more than
    a standard error, it is the start; that, and every other thing that was not as asked, is logged. The test part is
    not looked at.

    Args:
        model: what to train, or what `nasprune.search` returned; its output is (N, classes). With a label
            for every position, as in segmentation, it is (N, classes, ...); positions with one below 0 do not count.
        data: as for `nasprune.search`. Of a name or `DataSplits` the training part is trained on; of data of your own
            all but a tenth, the validation part, and but what you gave as a test part. What is held back is logged.
        epochs: passes over the training part, at least 1.
        lr: highest learning rate; by default 0.01 for a network that has been trained, 0.03 where the teacher's
            features guide it, 0.05 for one as initialised; with AdamW 0.0003, 0.0003 and 0.002.
        optimizer: "sgd" with Nesterov momentum, or "adamw".
        batch_size: images a step, at least 2.
        teacher: a network with the same outputs to learn from as well, or `None`. Of networks that give their own
            losses, such as detectors, only features are compared, for which `model` is a search's result.
        temperature: softens the outputs of both nets, above 0. soft_share: weight of the teacher's term, in [0, 1].
        feature_share: weight of the squared distance from the teacher's features where blocks end, relative to their
            size (as FitNets do, Romero et al. 2015, arXiv:1412.6550); needs a search's result as `model`, and its dense
            network as the teacher, and is 1 by default where these are given.
        momentum: of SGD. weight_decay: biases and norm weights do not decay. warmup: share of the steps, in [0, 1).
        smoothing: of labels, in [0, 1). average: decay of the averaged weights a step, in [0, 1); 0 is none.
        clip: largest norm of the gradient; 0 is any.
        choose: "last", or "best" for the epoch with the most right answers on the validation part, the start included.
        accumulate: batches whose gradients make one step, which so has `batch_size` times as many images.
        mix: "mixup", "cutmix" or "both": images of a batch are mixed with each other, and their classes in shares.
        augment: changes a batch of images, given a seeded generator, such as `nasprune.data.augment.flip_and_shift`, or
            one image tensor, as transforms of torchvision do; the shape stays.
        task: what is learned from labels, with its own loss and score; by default whole numbers are classes, and others
            numbers, which are learned by their squared error. `nasprune.Detection()` for boxes in dicts.
        masks: which weights stay, the others being zero all the while, as booleans by the name of the parameter; by
            default those of a search's result.
        input_size: pixels of a side, for a data set name that resizes; else what the source says.
        seed: of the order of images, of augmentation and of dropout; global random states are left as they were.
        device: "auto", "cpu", "cuda". precision: as Lightning Fabric names it, such as "bf16-mixed".
        out: folder for the state after every epoch; a training that was killed goes on there, on the CPU to the same
            weights bit for bit.
        save_every: seconds after which the state is written on the way through an epoch, too, where one process trains.
        log: "csv:DIR", "tensorboard:DIR", "mlflow" or "mlflow:URI", "wandb" or "wandb:PROJECT", or several: where loss,
            rate and accuracies are written as well.
        on_epoch, on_step: called after every epoch and step.
        should_stop: asked after every step; where it says so, the last whole epoch is the result.

    Processes that torchrun starts train together, each on `batch_size` images a step: every one gets the result, and
    the first one alone calls, logs and writes.

    Returns:
        The trained network, in eval mode, on the device where `model` lies.

    Raises:
        InputError: an option is out of range, the model takes no gradients, the teacher has other outputs, labels are
        of one class or of none, the loss is not finite from the start, or `out` holds another training.
    """
    found = as_found(model)
    if feature_share is None:
        feature_share = 1.0 if found is not None and teacher is not None else 0.0
    recipe = Recipe(
        epochs=epochs,
        lr=lr,
        optimizer=optimizer,
        batch_size=batch_size,
        momentum=momentum,
        weight_decay=weight_decay,
        warmup=warmup,
        smoothing=smoothing,
        average=average,
        clip=clip,
        temperature=temperature,
        soft_share=soft_share,
        feature_share=feature_share,
        choose=choose,
        accumulate=accumulate,
        mix=mix,
    )
    whole_number("seed", seed, "write for example seed=0")
    folder = path("out", out, "write for example out='runs/mine'") if out is not None else None
    check_task(task)
    check_save_every(save_every)
    logs = logs_of(log) if is_first() else []
    on_step, on_epoch = logged(logs, on_step, on_epoch)
    start = accepted(found.model if found is not None else model)
    teacher = accepted(teacher, "teacher") if teacher is not None else None
    held = _masks(masks, found)
    held.check(start)
    if held:
        start = twin(start)
        held.hold(start)
    parts = training_parts(data, seed=seed, input_size=input_size, model=start)
    check_fits(start, parts, name=type(start).__name__)
    check_trainable(start)
    check_labels(start, parts, teacher is not None and soft_share == 1)
    if teacher is not None:
        check_teacher(start, teacher, parts, task, features=found is not None and feature_share > 0)
    check_augment(parts, augment)
    change = batch_change(augment)
    mixed = mixing(mix, classes_of(start, parts) if mix != "none" else 0)
    home = next((tensor.device for tensor in start.parameters()), torch.device("cpu"))
    with quiet(), own_randomness(start), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        seed_all(seed, start)
        fabric = start_fabric(device, precision, together=True)
        near = _nearness(found, teacher, feature_share, precision, fabric.device, parts)
        objective = Objective(recipe, near, task or task_of(parts.train, smoothing))
        keeper = Keeper(folder, {})
        if folder is not None:
            keeper.settings = settings_of(start, teacher, parts, recipe, seed, augment, precision, task, held)
        tuner = Tuner(start, recipe, objective, fabric)
        tuner.after = partial(held.hold, tuner.student)
        training = Training(
            tuner=tuner,
            recipe=recipe,
            top=recipe.rate(trained=not looks_initialised(start)),
            parts=parts,
            task=task or task_of(parts.train),
            change=change,
            mixed=mixed,
            seed=seed,
            keeper=keeper,
            save_every=save_every,
            reference=twin(teacher) if teacher is not None else start,
            on_epoch=on_epoch,
            on_step=on_step,
            should_stop=should_stop,
        )
        weights, notes = training.run()
        result = twin(start)
        copy_into(result, weights)
    ended(logs)
    for note in (*notes, *lost_in_files(start, result)):
        logging.getLogger(__name__).warning(note)
    return result.to(home).eval()


def _masks(given: Mapping[str, Tensor] | None, found: Found | None) -> WeightMasks:
    """The masks asked for, or those of a search's result."""
    if given is None:
        return found.plan.masks.below(found.plan.scope) if found is not None else WeightMasks()
    if not isinstance(given, Mapping):
        raise refused("masks", "a dict of boolean tensors", given, "write for example masks={'fc.weight': weight != 0}")
    return given if isinstance(given, WeightMasks) else WeightMasks(given)


def _nearness(
    found: Found | None,
    teacher: nn.Module | None,
    feature_share: float,
    precision: str,
    device: torch.device,
    parts: DataSplits,
) -> Nearness | None:
    """What compares with the teacher. Raises InputError where features are to be compared and nobody knows which."""
    if feature_share and (teacher is None or found is None):
        raise InputError(
            "`feature_share` compares features with the teacher's: give `teacher`, and as the model what "
            "nasprune.search returned, which says which channels stayed"
        )
    if teacher is None:
        return None
    dense = twin(teacher).to(device).eval().requires_grad_(False)
    near = partial(
        Nearness, dense, speaks=True, mixed=precision == "bf16-mixed", variance=variances(dense, parts.validation)
    )
    if found is None or not feature_share:
        return near((), None)
    graph = found.graph
    check_dense(found.plan, dense, "give that, or compare outputs alone with feature_share=0")
    return near(taps(graph, found.plan, submodule(dense, graph.scope)), graph.scope)
