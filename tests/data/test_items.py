"""Items of the user's own datasets: what is accepted, and one clear error for what cannot be read."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, TensorDataset

from nasprune.data import load_data
from nasprune.data.batches import batches, has_labels, together
from nasprune.data.items import Checked
from nasprune.data.splits import ArrayDataset, DataSplits
from nasprune.errors import InputError

IMAGE = torch.zeros(3, 4, 4)


class Own(Dataset):
    """Items (image, 1), but for item `odd`, which is what `make` returns."""

    def __init__(self, make, odd=13):
        self.make, self.odd = make, odd

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return self.make() if index == self.odd else (IMAGE, 1)


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _raise(ValueError("torn file\nsecond line")), "ValueError: torn file; repair"),
        (lambda: sys.exit(3), "SystemExit: 3"),
        (lambda: (torch.zeros(3, 5, 4), 1), r"image has shape \(3, 5, 4\), others have \(3, 4, 4\)"),
        (lambda: (IMAGE, torch.zeros(4)), r"label has shape \(4,\), others have \(\)"),
        (lambda: (IMAGE / 0, 1), "its image holds NaN or infinite values; repair or remove it"),
        (lambda: (IMAGE, "cat"), "label must be a class number, a dict of tensors or None, got a str"),
        (lambda: ([0.0], 1), r"expected \(tensor, class number\) items.* got a tuple of \(list, int\)"),
        (lambda: {IMAGE}, "got a set"),
    ],
)
def test_an_item_that_cannot_be_read_is_named(make, message):
    with pytest.raises(InputError, match=f"^data 'data': item 13 failed: .*{message}") as caught:
        list(batches(Own(make), 8))
    assert "\n" not in str(caught.value)
    data = load_data(Own(make))
    parts = ConcatDataset([data.train, data.calibration, data.validation, data.test])
    with pytest.raises(InputError, match=r"^data 'data': item 13 failed"):
        list(batches(parts, 8))


def test_a_first_item_that_cannot_be_read_is_named():
    with pytest.raises(InputError, match="item 0 failed: OSError: gone"):
        load_data(Own(lambda: _raise(OSError("gone")), odd=0))


@pytest.mark.parametrize("item", [IMAGE, (IMAGE,), (IMAGE, None), [IMAGE, None]])
def test_images_without_labels_have_the_label_minus_one(item):
    data = load_data([item] * 20)
    found, labels = next(batches(data.train, 4))
    assert found.shape == (4, 3, 4, 4)
    assert labels.tolist() == [-1] * 4
    assert data.num_classes is None
    assert not has_labels(data.train)


def test_some_labels_are_found():
    assert has_labels([(IMAGE, None)] * 100 + [(IMAGE, 2)])
    assert load_data(TensorDataset(torch.zeros(20, 3, 4, 4))).input_shape == (3, 4, 4)


def test_labels_of_every_kind_of_number_go_together():
    labels = [1, torch.tensor(2), np.int64(3), torch.tensor([4])[0], True, None]
    _, found = next(batches([(IMAGE, label) for label in labels], 6))
    assert found.tolist() == [1, 2, 3, 4, 1, -1]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.bool_, np.int64])
def test_classes_of_any_whole_numbers_are_int64(kind):
    label, mask = kind(1), np.ones((4, 4), dtype=kind)
    for given in (label, mask, torch.as_tensor(mask)):
        _, found = next(batches([(IMAGE, given)] * 2, 2))
        assert found.dtype == torch.int64
        assert bool((found == 1).all())


def test_labels_of_pixels_stay():
    pixels = torch.arange(16).reshape(4, 4)
    _, found = next(batches([(IMAGE, pixels)] * 2, 2))
    assert torch.equal(found[1], pixels)


def test_iteration_ends():
    assert len(list(Checked([(IMAGE, 1)] * 3))) == 3


def test_own_splits_are_checked_when_they_are_read():
    part = ArrayDataset(torch.zeros(3, 3, 4, 4), torch.zeros(3))
    data = load_data(DataSplits("mine", part, part, Own(lambda: _raise(OSError("gone"))), part, 2, (3, 4, 4)))
    with pytest.raises(InputError, match="item 13 failed: OSError: gone"):
        list(batches(data.validation, 8))


@pytest.mark.parametrize(("side", "most", "expected"), [(32, 128, 128), (224, 128, 27), (224, 16, 16), (1024, 128, 8)])
def test_fewer_large_images_go_through_at_once(side: int, most: int, expected: int) -> None:
    data = TensorDataset(torch.zeros(1, 3, side, side), torch.zeros(1, dtype=torch.int64))
    assert together(data, most) == expected
