"""Data sets by name, such as `digits`, `cifar10:DIR` or `module:factory`; and the user's own objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from nasprune.common.blame import told
from nasprune.common.calls import in_type_of
from nasprune.common.factories import call_factory
from nasprune.common.inputs import Inputs
from nasprune.common.untouched import undisturbed
from nasprune.data.cifar10 import cifar10
from nasprune.data.digits import digits
from nasprune.data.folder import imagefolder
from nasprune.data.items import checked
from nasprune.data.mnist import mnist
from nasprune.data.objects import wrapped
from nasprune.data.pixels import Pixels
from nasprune.data.pointclouds import pointclouds
from nasprune.data.splits import DataSplits
from nasprune.errors import InputError, UnknownNameError

DataSource = (
    str
    | DataSplits
    | Dataset[tuple[Tensor, int]]
    | DataLoader[tuple[Tensor, int]]
    | tuple[Any, ...]
    | Sequence[Any]
    | Mapping[str, Any]
)
PIXELS = 224  # of a side, where nobody says
EXAMPLES = "digits, pointclouds, cifar10:DIR, mnist:DIR, imagefolder:DIR, file.py:factory, package.module:factory"


def _digits(place: str, seed: int, size: int, pixels: Pixels) -> DataSplits:
    if place:
        raise InputError(f"`digits` takes no folder, got digits:{place}")
    return digits(seed)


def _pointclouds(place: str, seed: int, size: int, pixels: Pixels) -> DataSplits:
    if place:
        raise InputError(f"`pointclouds` takes no folder, got pointclouds:{place}")
    return pointclouds(seed)


def _mnist(place: str, seed: int, size: int, pixels: Pixels) -> DataSplits:
    return mnist(_folder("mnist", place), seed)


def _cifar10(place: str, seed: int, size: int, pixels: Pixels) -> DataSplits:
    return cifar10(_folder("cifar10", place), seed)


def _imagefolder(place: str, seed: int, size: int, pixels: Pixels) -> DataSplits:
    return imagefolder(_folder("imagefolder", place), seed, size, pixels)


_SOURCES: dict[str, Callable[[str, int, int, Pixels], DataSplits]] = {
    "digits": _digits,
    "pointclouds": _pointclouds,
    "cifar10": _cifar10,
    "mnist": _mnist,
    "imagefolder": _imagefolder,
}


def load_data(source: DataSource, *, seed: int = 0, size: int = PIXELS, model: nn.Module | None = None) -> DataSplits:
    """A data set in four parts.

    Args:
        source: a name with its folder, a factory, or a `DataSplits`, `Dataset`, `DataLoader` (its dataset is taken),
            pair or dict of images (N, ...) and labels (N,) or masks (N, ...) as tensors or numpy arrays, or several
            data sets: (train, val), (train, val, test) or a dict of these. Items of a dataset are (image, label), or
            (image, None) or images alone where nothing asks for labels, or rows such as {"image": ..., "label": ...}.
            Images may be those of PIL. Of a stream, which has no length, the first items are taken, 8,192 and 2 GiB at
            most.
        seed: of the split; the same seed gives the same parts.
        size: pixels of a side, for sources that resize.
        model: what images from files are prepared for, as its timm configuration says; else as for ImageNet.

    Raises:
        InputError: nothing usable is there.
        UnknownNameError: no source has that name.
    """
    if torch.get_default_device().type == "meta":
        raise InputError(
            "data is read into tensors on torch's default device, and on 'meta' they have no values; call "
            "torch.set_default_device('cpu') first, or leave the `with torch.device('meta')`"
        )
    pixels = Pixels.of(model)
    if isinstance(source, str):
        name, _, place = source.partition(":")
        if name in _SOURCES:
            return _SOURCES[name](place, seed, size, pixels)
        if not place and Path(source).expanduser().is_dir():
            raise InputError(
                f"data {source!r} is a folder: imagefolder:{source} reads images in a subfolder for each class, "
                f"cifar10:{source} and mnist:{source} the files of these sets; write one of them"
            )
        if not place:
            raise UnknownNameError(f"data (write {EXAMPLES})", source, _SOURCES)
    prepare = pixels.to_tensor(size)
    name, given = (source, call_factory(source, what="data")) if isinstance(source, str) else ("data", source)
    found = wrapped(name, given, seed, prepare)
    return replace(found, normalisation=pixels.words) if prepare.used else found


def prepared_for(model: nn.Module, data: DataSplits | None, source: str, *, seed: int, size: int) -> DataSplits:
    """`data`, which was read before the network was known, or read (anew) where that says how images are prepared."""
    if data is not None and Pixels.of(model) == Pixels():
        return data
    return load_data(source, seed=seed, size=size, model=model)


def image_side(inputs: Inputs) -> int:
    """Pixels of a side of the images that a network is called with."""
    first = inputs.tensors[0] if inputs.tensors else None
    return int(first.shape[-1]) if first is not None and first.ndim == 4 else PIXELS


def check_fits(model: nn.Module, data: DataSplits, *, name: str) -> None:
    """Raises InputError unless `model` takes one validation image and has an output for every class."""
    image, _ = checked(data.validation, data.name)[0]
    home = next((value.device for value in model.parameters()), image.device)
    try:
        with undisturbed(model):
            output = model(in_type_of(model, image.unsqueeze(0)).to(home))
    except Exception as error:  # the user's code may fail in any way
        raise InputError(
            f"data {data.name!r} gives images of shape {data.input_shape}, which model {name!r} does not take: "
            f"{told(error)}; choose other data, another model or --input-size"
        ) from error
    outputs = output.shape[1] if isinstance(output, torch.Tensor) and output.ndim == 2 else None
    if outputs is not None and data.num_classes is not None and outputs < data.num_classes:
        raise InputError(
            f"data {data.name!r} has {data.num_classes} classes, model {name!r} only {outputs} outputs; "
            "give a model with an output for every class"
        )


def _folder(name: str, place: str) -> Path:
    if not place:
        raise InputError(f"`{name}` needs a folder: write {name}:DIR")
    return Path(place).expanduser()
