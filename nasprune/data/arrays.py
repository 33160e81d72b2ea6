"""Images and labels from a `.npz` file; pickled arrays are never opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from nasprune.errors import InputError

Bytes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def images_in(path: Path, shape: tuple[int, ...]) -> tuple[Bytes, Labels]:
    """Arrays `images` (N, *shape), uint8, and `labels` (N,).

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"].astype(np.int64)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot read {str(path)!r}: expected arrays `images` and `labels`: {error}") from error
    if images.dtype != np.uint8 or images.shape[1:] != shape or labels.shape != images.shape[:1]:
        wanted = "×".join(map(str, shape))
        raise InputError(
            f"{str(path)!r}: expected `images` uint8 N×{wanted} and `labels` N, got {images.dtype} {images.shape} and "
            f"{labels.shape}"
        )
    return images, labels


def check_classes(labels: Labels, classes: int, name: str) -> None:
    """Raises InputError unless all labels lie in 0..classes - 1. name: of the data, for the message."""
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"{name} labels must lie in 0..{classes - 1}, got {labels.min()}..{labels.max()}")
