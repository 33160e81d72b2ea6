"""Splits are disjoint, complete, stratified and fixed by the seed."""

from __future__ import annotations

import pytest
import torch

from nasprune.data import ArrayDataset
from nasprune.data.splits import size_of, split, split_indices
from nasprune.errors import InputError


def test_indices_are_disjoint_complete_and_stratified():
    labels = [number % 10 for number in range(1000)]
    parts = split_indices(labels, (0.6, 0.1, 0.1, 0.2), seed=0)
    assert sorted(index for part in parts for index in part) == list(range(1000))
    assert [len(part) for part in parts] == [600, 100, 100, 200]
    for part in parts:
        counts = torch.bincount(torch.tensor([labels[index] for index in part]))
        assert int(counts.max() - counts.min()) <= 1


def test_seed_fixes_the_split():
    labels = [0] * 50
    assert split_indices(labels, (0.5, 0.5), seed=1) == split_indices(labels, (0.5, 0.5), seed=1)
    assert split_indices(labels, (0.5, 0.5), seed=1) != split_indices(labels, (0.5, 0.5), seed=2)


def test_a_given_test_part_is_kept_whole():
    dataset = ArrayDataset(torch.zeros(80, 1, 2, 2), torch.zeros(80))
    kept = ArrayDataset(torch.ones(7, 1, 2, 2), torch.zeros(7))
    parts = split("toy", dataset, seed=0, test=kept)
    assert parts.test is kept
    assert [size_of(part) for part in (parts.train, parts.calibration, parts.validation)] == [60, 10, 10]


def test_too_few_images_are_refused():
    with pytest.raises(InputError, match="at least 10 images, got 3"):
        split("toy", ArrayDataset(torch.zeros(3, 1), torch.zeros(3)), seed=0)


def test_labels_must_match_images():
    with pytest.raises(InputError, match="one label, or one mask, per image"):
        ArrayDataset(torch.zeros(3, 1), torch.zeros(4))
