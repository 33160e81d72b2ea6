"""scikit-learn's digits: 1,797 real 8×8 grey images that come inside the package, so every machine has them.

Alpaydin, Kaynak 1998, "Optical recognition of handwritten digits", UCI Machine Learning Repository (its test set).
"""

from __future__ import annotations

import torch

from nasprune.data.splits import ArrayDataset, DataSplits, split


def digits(seed: int) -> DataSplits:
    """Images (1, 8, 8) in [-1, 1], 10 classes, split by `seed` with equal class shares."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32, device="cpu").unsqueeze(1) / 8 - 1
    labels = torch.tensor(bunch.target, device="cpu")
    return split(
        "digits",
        ArrayDataset(images, labels),
        seed=seed,
        labels=labels.tolist(),
        num_classes=10,
        normalisation="scaled to [-1, 1]",
    )
