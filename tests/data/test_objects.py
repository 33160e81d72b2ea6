"""The user's own objects as data: every way of handing over images, labels and parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from nasprune.data import DataSplits, load_data
from nasprune.data.batches import batches, has_labels
from nasprune.data.splits import size_of
from nasprune.errors import InputError

IMAGES = torch.arange(40 * 12, dtype=torch.float32).reshape(40, 3, 2, 2)
LABELS = torch.arange(40) % 4
MORE = torch.ones(8, 3, 2, 2), torch.zeros(8).long()

PAIRS = {
    "tensors": (IMAGES, LABELS),
    "arrays": (IMAGES.numpy(), LABELS.numpy()),
    "array and list": (IMAGES.numpy(), LABELS.tolist()),
    "list": [IMAGES, LABELS],
    "dict": {"images": IMAGES.numpy(), "labels": LABELS},
    "x and y": {"x": IMAGES, "y": LABELS.int()},
    "dataset of arrays": [(image, int(label)) for image, label in zip(IMAGES.numpy(), LABELS, strict=True)],
}


def test_an_image_that_is_not_finite_is_refused_by_its_number():
    images = IMAGES.clone()
    images[3, 0, 1] = torch.inf
    with pytest.raises(InputError, match="image 3 holds NaN or infinite values; repair or remove it"):
        load_data((images, LABELS))


@pytest.mark.parametrize("source", PAIRS.values(), ids=PAIRS)
def test_images_and_labels_are_taken_as_they_come(source):
    data = load_data(source)
    assert [size_of(part) for part in (data.train, data.calibration, data.validation, data.test)] == [24, 4, 4, 8]
    assert data.given == ()
    assert data.split.endswith("drawn by the seed from the 40 given")
    everything = [
        (images[0].tolist(), int(labels[0]))
        for part in (data.train, data.calibration, data.validation, data.test)
        for images, labels in batches(part, 1)
    ]
    wanted = [(image.tolist(), int(label)) for image, label in zip(IMAGES, LABELS, strict=True)]
    assert sorted(everything) == sorted(wanted)


SEVERAL = {
    "two sets": (TensorDataset(IMAGES, LABELS), TensorDataset(*MORE)),
    "two loaders": [DataLoader(TensorDataset(IMAGES, LABELS)), DataLoader(TensorDataset(*MORE))],
    "two pairs": ((IMAGES, LABELS), MORE),
    "dict of parts": {"train": (IMAGES, LABELS), "valid": MORE},
    "dict with a test": {"training": {"images": IMAGES, "labels": LABELS}, "test": MORE},
}


@pytest.mark.parametrize("source", SEVERAL.values(), ids=SEVERAL)
def test_the_second_of_two_sets_is_the_test(source):
    data = load_data(source)
    assert data.given == ("test",)
    assert size_of(data.test) == 8
    assert size_of(data.train) + size_of(data.calibration) + size_of(data.validation) == 40
    assert "test as given, the others drawn by the seed from 40 for training" in data.split


def test_three_sets_are_train_validation_and_test():
    data = load_data(((IMAGES, LABELS), MORE, (IMAGES[:9], LABELS[:9])))
    assert data.given == ("validation", "test")
    assert [size_of(part) for part in (data.validation, data.test)] == [8, 9]
    assert size_of(data.train) + size_of(data.calibration) == 40


def test_splits_are_taken_as_they_are():
    part = TensorDataset(*MORE)
    data = DataSplits("mine", part, part, part, part, 4, (3, 2, 2))
    assert load_data(data) is data
    assert data.split.endswith("as given")


@pytest.mark.parametrize("source", [(IMAGES, None), IMAGES, IMAGES.numpy(), {"images": IMAGES}])
def test_labels_may_be_left_out(source):
    data = load_data(source)
    assert not has_labels(data.train)
    assert data.input_shape == (3, 2, 2)


def test_masks_are_labels():
    masks = torch.randint(0, 4, (40, 2, 2))
    data = load_data((IMAGES, masks))
    images, labels = next(batches(data.train, 5))
    assert labels.shape == (5, 2, 2)
    assert torch.equal(labels[0], masks[(images[0] == IMAGES).flatten(1).all(1)][0])
    assert data.num_classes is None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"pictures": IMAGES, "labels": LABELS}, "expected the keys 'images' and 'labels', or .* got pictures, labels"),
        ({"train": MORE, "rest": MORE}, "rest is no part of a data set; give train, val and test"),
        ({"val": MORE, "test": MORE}, "no training part"),
        ({"train": (IMAGES, LABELS), "val": MORE, "valid": MORE}, "'val' and 'valid', both for the validation part"),
        ((IMAGES, LABELS[:7]), "images of shape .40, 3, 2, 2. and labels of shape .7,."),
        ((IMAGES.numpy(), np.array([None] * 40)), "hold no plain numbers"),
        (object(), "got a object"),
    ],
)
def test_other_objects_are_refused_by_what_they_hold(source, message):
    with pytest.raises(InputError, match=message):
        load_data(source)


def test_floating_point_images_come_in_one_type():
    for source in ((IMAGES.double(), LABELS), TensorDataset(IMAGES.double(), LABELS)):
        data = load_data(source).in_type(torch.float16)
        images, _ = next(batches(data.validation, 3))
        assert images.dtype == torch.float16
    bytes_ = load_data((IMAGES.byte(), LABELS)).in_type(torch.float16)
    assert next(batches(bytes_.validation, 3))[0].dtype == torch.uint8
