"""CIFAR-10 from a folder: `.npz` arrays or the binary version; pickles are never opened.

Krizhevsky 2009, "Learning multiple layers of features from tiny images". Pixels are scaled to [0, 1] and normalised
with ImageNet's mean and standard deviation, because the public CIFAR ResNet weights expect that.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nasprune.data.arrays import Bytes, Labels, check_classes, images_in
from nasprune.data.pixels import MEAN, STD, Pixels
from nasprune.data.splits import ArrayDataset, DataSplits, split
from nasprune.errors import InputError

_RECORD = 1 + 3 * 32 * 32


def cifar10(folder: Path, seed: int) -> DataSplits:
    """Images (3, 32, 32), normalised, 10 classes; the training images are split by `seed`, the test images kept.

    Args:
        folder: holds `cifar10_train*.npz` and `cifar10_test*.npz` (arrays `images`, uint8 N×32×32×3, and `labels`), or
            the binary version's `data_batch_*.bin` and `test_batch.bin`, directly or in `cifar-10-batches-bin`.

    Raises:
        InputError: neither is there, or a file holds something else.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {str(folder)!r}; give cifar10:DIR with DIR holding the CIFAR-10 files")
    train, test = _read(folder, "train"), _read(folder, "test")
    return split(
        "cifar10",
        train,
        seed=seed,
        labels=train.labels.tolist(),
        num_classes=10,
        test=test,
        normalisation=Pixels().words,
    )


def _read(folder: Path, part: str) -> ArrayDataset:
    pattern = "data_batch_*.bin" if part == "train" else "test_batch.bin"
    if arrays := sorted(folder.glob(f"cifar10_{part}*.npz")):
        pairs = [images_in(path, (32, 32, 3)) for path in arrays]
    elif binaries := sorted(folder.glob(pattern)) or sorted((folder / "cifar-10-batches-bin").glob(pattern)):
        pairs = [_binary(path) for path in binaries]
    else:
        raise InputError(_missing(folder, part))
    return _normalised(np.concatenate([images for images, _ in pairs]), np.concatenate([labels for _, labels in pairs]))


def _missing(folder: Path, part: str) -> str:
    pickled = [*folder.glob("data_batch_1"), *folder.glob("cifar-10-batches-py/data_batch_1")]
    if pickled:
        return (
            f"{str(pickled[0].parent)!r} holds the Python version of CIFAR-10, which is pickled and not opened; "
            "download the binary version (cifar-10-binary.tar.gz) and give the folder it unpacks to"
        )
    return (
        f"no CIFAR-10 {part} images in {str(folder)!r}; expected cifar10_{part}*.npz, or the binary version's "
        "data_batch_*.bin and test_batch.bin"
    )


def _binary(path: Path) -> tuple[Bytes, Labels]:
    try:
        raw = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from error
    if not raw.size or raw.size % _RECORD:
        raise InputError(f"{str(path)!r}: expected records of {_RECORD} bytes, got {raw.size} bytes in all")
    records = raw.reshape(-1, _RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0].astype(np.int64)


def _normalised(images: Bytes, labels: Labels) -> ArrayDataset:
    check_classes(labels, 10, "CIFAR-10")
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255
    mean, std = torch.tensor(MEAN, device="cpu").view(3, 1, 1), torch.tensor(STD, device="cpu").view(3, 1, 1)
    return ArrayDataset((pixels - mean) / std, torch.from_numpy(labels))
