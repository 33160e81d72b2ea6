"""Image folders: classes alone, or parts of any of the usual names; anything else is refused with what was found."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nasprune.data import load_data
from nasprune.data.splits import size_of
from nasprune.errors import InputError


def fill(folder, counts):
    """Folders with so many images each."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.fromarray(np.full((9, 9, 3), number, dtype=np.uint8)).save(folder / name / f"{number}.png")


def of(folder):
    return load_data(f"imagefolder:{folder}", size=8)


@pytest.mark.parametrize("train", ["train", "Training"])
@pytest.mark.parametrize("other", ["val", "valid", "validation", "test", "Testing"])
def test_the_second_of_two_parts_is_the_test(tmp_path, train, other):
    fill(tmp_path, {f"{train}/cat": 10, f"{train}/dog": 10, f"{other}/cat": 2, f"{other}/dog": 3})
    data = of(tmp_path)
    assert (data.num_classes, size_of(data.test), data.given) == (2, 5, ("test",))
    assert size_of(data.train) + size_of(data.calibration) + size_of(data.validation) == 20


def test_three_parts(tmp_path):
    fill(tmp_path, {f"{part}/{name}": 6 for part in ("train", "valid", "test") for name in ("cat", "dog")})
    data = of(tmp_path)
    assert data.given == ("validation", "test")
    assert [size_of(data.validation), size_of(data.test)] == [12, 12]
    assert size_of(data.train) + size_of(data.calibration) == 12


def test_a_training_part_alone_is_divided(tmp_path):
    fill(tmp_path, {"train/cat": 10, "train/dog": 10})
    assert of(tmp_path).num_classes == 2
    assert of(tmp_path).given == ()


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, {"bus": 10, "car": 10, "train": 10})
    assert of(tmp_path).num_classes == 3


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train/cat": 10, "val/cat": 2, "valid/cat": 2}, "'val' and 'valid', both for the validation part"),
        ({"train/cat": 10, "cat": 3}, "holds train, which are parts of a data set, beside cat, which are not"),
        ({"val/cat": 10, "test/cat": 3}, "holds test, val, and no training part; call one 'train'"),
        ({"train/cat": 10, "test": 3}, "no images in '.*test', found 0.png, 1.png"),
        ({"train": 10, "val": 3}, "no images in"),
        ({"train/cat": 10, "test/cow": 3}, "the train and the test folder must have the same classes, cat, cow"),
    ],
)
def test_other_layouts_are_refused_with_what_was_found(tmp_path, counts, message):
    fill(tmp_path, counts)
    with pytest.raises(InputError, match=message):
        of(tmp_path)


def test_empty_folders_beside_parts_do_not_matter(tmp_path):
    fill(tmp_path, {"train/cat": 10, "val/cat": 2, "notes": 0, ".cache/x": 1, "__MACOSX/y": 1})
    assert size_of(of(tmp_path).test) == 2
