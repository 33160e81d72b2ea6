"""MNIST from a folder: `.npz` arrays, or the original IDX files.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition", Proceedings of the IEEE
86(11). Pixels are scaled to [0, 1], so that the background is zero.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nasprune.common.files import content_of
from nasprune.data.arrays import Bytes, Labels, check_classes, images_in
from nasprune.data.splits import ArrayDataset, DataSplits, split
from nasprune.errors import InputError

SIDE = 28
IDX = {"train": "train", "test": "t10k"}
LARGEST = 2**28
"""Bytes of an IDX file, at most."""
THEN = "give mnist:DIR with DIR holding the MNIST files"


def mnist(folder: Path, seed: int) -> DataSplits:
    """Images (1, 28, 28) in [0, 1], 10 classes; the training images are split by `seed`, the test images kept.

    Args:
        folder: holds `mnist_train*.npz` and `mnist_test*.npz` (arrays `images`, uint8 N×28×28, and `labels`), or the
            unpacked IDX files `train-images-idx3-ubyte` and so on, directly or in `MNIST/raw`.

    Raises:
        InputError: neither is there, or a file holds something else.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {str(folder)!r}; {THEN}")
    train, test = (_read(folder, part) for part in ("train", "test"))
    return split(
        "mnist",
        train,
        seed=seed,
        labels=train.labels.tolist(),
        num_classes=10,
        test=test,
        normalisation="scaled to [0, 1]",
    )


def _read(folder: Path, part: str) -> ArrayDataset:
    if arrays := sorted(folder.glob(f"mnist_{part}*.npz")):
        pairs = [images_in(path, (SIDE, SIDE)) for path in arrays]
    else:
        raw = next((place for place in (folder, folder / "MNIST" / "raw") if _idx(place, part).is_file()), None)
        if raw is None:
            raise InputError(
                f"no MNIST {part} images in {str(folder)!r}; expected mnist_{part}*.npz, or the unpacked IDX file "
                f"{_idx(folder, part).name}"
            )
        pairs = [(_values(_idx(raw, part), 3), _values(_idx(raw, part, "labels", 1), 1).astype(np.int64))]
    images = np.concatenate([images for images, _ in pairs])
    labels = np.concatenate([labels for _, labels in pairs])
    return _scaled(images, labels)


def _idx(folder: Path, part: str, what: str = "images", axes: int = 3) -> Path:
    return folder / f"{IDX[part]}-{what}-idx{axes}-ubyte"


def _values(path: Path, axes: int) -> Bytes:
    """The bytes of an IDX file with so many axes, in its shape."""
    raw = content_of(path, "MNIST", THEN, most=LARGEST)
    head = 4 + 4 * axes
    shape = tuple(np.frombuffer(raw[4:head], dtype=">u4").tolist()) if len(raw) >= head else ()
    if raw[:4] != bytes((0, 0, 8, axes)) or len(raw) - head != int(np.prod(shape, dtype=object)):
        raise InputError(
            f"{str(path)!r}: expected an IDX file of bytes with {axes} axes; take another copy of the file"
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=head).reshape(shape)


def _scaled(images: Bytes, labels: Labels) -> ArrayDataset:
    if images.shape[1:] != (SIDE, SIDE) or len(images) != len(labels) or not len(labels):
        raise InputError(f"MNIST images must have shape N×28×28 with N labels, got {images.shape} and {labels.shape}")
    check_classes(labels, 10, "MNIST")
    return ArrayDataset(
        torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(1).float() / 255, torch.from_numpy(labels)
    )
