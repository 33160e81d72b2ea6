"""Augmentation as the user has it: a function of a batch and a generator, or a transform of one image."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.common.arguments import described, refused
from nasprune.common.blame import told
from nasprune.errors import InputError, NaspruneError

Augment = Callable[..., Any]
"""`augment(images, generator)` for a batch (n, C, H, W), or `augment(image)` for an image (C, H, W)."""

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def batch_change(augment: Augment | None) -> Augment:
    """What changes a batch of images (n, C, H, W), given a generator; nothing for `None`.

    Raises:
        InputError: `augment` is not callable; and when it runs, where it fails or changes the shape.
    """
    if augment is None:
        return lambda images, generator: images
    if not callable(augment) or inspect.isclass(augment):
        raise refused("augment", "a function or a transform", augment, "give for example RandomHorizontalFlip()")
    batched = _takes_a_generator(augment)

    def change(images: Tensor, generator: torch.Generator) -> Tensor:
        try:
            found = augment(images, generator) if batched else _each(augment, images)
        except NaspruneError:
            raise
        except Exception as error:  # the user's code, and torchvision's, may fail in any way
            raise InputError(
                f"`augment` failed on image tensors of shape {tuple(images.shape[1:])}: {told(error)}; leave out what "
                "makes tensors of pictures: the data gives tensors already"
            ) from error
        if not isinstance(found, Tensor) or found.shape != images.shape:
            raise refused("augment", f"what keeps a batch of shape {tuple(images.shape)}", found, "keep shape and type")
        return found

    return change


def _takes_a_generator(augment: Augment) -> bool:
    """Whether it takes a batch and a generator; transforms take one image, and some any number of these."""
    try:
        taken = inspect.signature(augment.forward if isinstance(augment, nn.Module) else augment).parameters.values()
    except (TypeError, ValueError):
        return False
    return sum(parameter.kind in POSITIONAL for parameter in taken) == 2


def _each(augment: Augment, images: Tensor) -> Tensor:
    changed = [augment(image) for image in images]
    for one in changed:
        if not isinstance(one, Tensor):
            raise InputError(f"`augment` must give a tensor for an image tensor, got {described(one)}")
    return torch.stack(changed)
