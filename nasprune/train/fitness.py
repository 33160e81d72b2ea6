"""Whether model, teacher and data fit each other for training, and which images are trained on."""

from __future__ import annotations

import logging
from dataclasses import replace

from torch import Tensor, nn
from torch.utils.data import ConcatDataset

from nasprune.common.blame import told
from nasprune.common.calls import in_type_of, main_output
from nasprune.common.untouched import twin, undisturbed
from nasprune.data import DataSplits, load_data
from nasprune.data.batches import batches
from nasprune.data.items import checked
from nasprune.data.load import PIXELS, DataSource
from nasprune.data.splits import size_of
from nasprune.errors import InputError
from nasprune.train.targets import AnyTask, ModelTask


def training_parts(data: DataSource, *, seed: int, input_size: int | None, model: nn.Module) -> DataSplits:
    """The data for training, in the model's type; what is not trained on is logged.

    Of data that is no name and no `DataSplits`, the calibration part is trained on, and the test part, too, where it
    was not given as such.

    Raises:
        InputError: there is no such data, or its images are not of `input_size`.
    """
    parts = load_data(data, seed=seed, size=input_size or PIXELS, model=model)
    if input_size is not None and parts.input_shape[-1] != input_size:
        raise InputError(
            f"`input_size` is {input_size}, and data {parts.name!r} gives images of shape {parts.input_shape} and does "
            "not resize them; leave `input_size` out"
        )
    if not isinstance(data, str | DataSplits):
        more = [parts.calibration, *(() if "test" in parts.given else (parts.test,))]
        parts = replace(parts, train=ConcatDataset([checked(parts.train), *map(checked, more)]))
    if not isinstance(data, DataSplits):
        _say(parts, tested="test" in parts.given or isinstance(data, str), calibrated=isinstance(data, str))
    kind = next((value.dtype for value in model.parameters() if value.is_floating_point()), None)
    return parts.in_type(kind) if kind is not None else parts


def _say(parts: DataSplits, *, tested: bool, calibrated: bool) -> None:
    held = [
        f"{size_of(parts.validation):,} validate",
        *([f"{size_of(parts.calibration):,} are left for calibration"] if calibrated else []),
        *([f"{size_of(parts.test):,} for a test"] if tested else []),
    ]
    logging.getLogger(__name__).warning(
        "finetune trains on %s images of data %r; %s. To divide them otherwise give a nasprune.DataSplits",
        f"{size_of(parts.train):,}",
        parts.name,
        ", ".join(held),
    )


def check_trainable(model: nn.Module) -> None:
    """Raises InputError where no parameter takes gradients."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(
            "every parameter of `model` is frozen (requires_grad is False), so there is nothing to train; call "
            "model.requires_grad_(True) first"
        )


def check_labels(model: nn.Module, parts: DataSplits, taught: bool) -> None:
    """Raises InputError where one image or one class is all there is to learn from. taught: by a teacher alone."""
    images = size_of(parts.train)
    if images < 2:
        raise InputError(f"data {parts.name!r} has {images} image to train on; give at least two")
    if taught:
        return
    classes: set[int] = set()
    for _, labels in batches(parts.train, 256):
        if not isinstance(labels, Tensor):  # boxes and the like, see `ModelTask`
            return
        if labels.is_floating_point():  # numbers, see `task_of`
            return
        classes.update(labels.reshape(-1).tolist())
        if len(classes) > 1:
            return
    only = classes.pop()
    if not 0 <= only < classes_of(model, parts):
        return  # the loss says what it needs
    raise InputError(
        f"all {images:,} training images of data {parts.name!r} have the label {only}, so the network would "
        "learn to say nothing else; give images of several classes, or a teacher with soft_share=1"
    )


def check_augment(parts: DataSplits, augment: object) -> None:
    """Raises InputError where images are to be changed whose positions have labels, which would not move with them."""
    if augment is None:
        return
    _, labels = next(batches(parts.train, 1))
    if not isinstance(labels, Tensor) or labels.ndim > 1:
        raise InputError(
            f"`augment` changes images alone, and those of data {parts.name!r} have a label for every position; leave "
            "it out, and change images and labels together in the data set"
        )


def classes_of(model: nn.Module, parts: DataSplits) -> int:
    """How many numbers a model gives for a validation image, 1 where there is no axis of classes."""
    image, _ = checked(parts.validation, parts.name)[0]
    home = next((value.device for value in model.parameters()), image.device)
    with undisturbed(twin(model)) as copied:
        found = main_output(copied(in_type_of(model, image.unsqueeze(0)).to(home)))
    return found.shape[1] if found is not None else 1


def check_teacher(
    model: nn.Module, teacher: nn.Module, parts: DataSplits, task: AnyTask | None, *, features: bool
) -> None:
    """Raises InputError unless the teacher takes the data, and gives outputs of the model's shape.

    features: whether those of the two are compared, which is all that is where networks give losses.
    """
    if isinstance(task, ModelTask):
        if features:
            return
        raise InputError(
            f"for the task {type(task).__name__}, whose networks give losses, a teacher shows its features alone; give "
            "as the model what nasprune.search returned, which says which channels stayed, with a feature_share above "
            "0, or leave `teacher` out"
        )
    image, _ = checked(parts.validation, parts.name)[0]
    shapes = []
    for name, net in (("model", model), ("teacher", teacher)):
        home = next((value.device for value in net.parameters()), image.device)
        copied = twin(net)
        try:
            with undisturbed(copied):
                outputs = copied(in_type_of(net, image.unsqueeze(0)).to(home))
        except Exception as error:  # the user's code may fail in any way
            raise InputError(
                f"the {name} does not take images of shape {parts.input_shape}: {told(error)}; give one that does"
            ) from error
        found = main_output(outputs)
        given = found if found is not None else outputs
        shapes.append(tuple(given.shape) if isinstance(given, Tensor) else None)
    if shapes[0] != shapes[1]:
        raise InputError(
            f"`teacher` must give outputs of the model's shape {shapes[0]}, got {shapes[1]}; give a teacher with the "
            "same classes, such as the dense network"
        )
