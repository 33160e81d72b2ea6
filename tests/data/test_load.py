"""Every source by name, the user's own objects, and what bad ones get."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from nasprune.data import check_fits, load_data
from nasprune.data.batches import batches
from nasprune.data.splits import size_of
from nasprune.errors import InputError, UnknownNameError
from nasprune.models.nets import digits_net, resnet20
from tests.assets import ASSETS, needs_assets


def test_digits():
    data = load_data("digits", seed=0)
    sizes = [size_of(part) for part in (data.train, data.calibration, data.validation, data.test)]
    assert sum(sizes) == 1797
    assert min(sizes) >= 179
    assert data.input_shape == (1, 8, 8)
    image, label = data.test[0]
    assert image.min() >= -1
    assert image.max() <= 1
    assert label in range(10)


@needs_assets
def test_cifar10_arrays():
    data = load_data(f"cifar10:{ASSETS}")
    assert size_of(data.test) == 509
    assert size_of(data.train) + size_of(data.calibration) + size_of(data.validation) == 5085
    assert (data.num_classes, data.input_shape) == (10, (3, 32, 32))


def _write_binary(folder, count=40):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    records = np.concatenate([labels[:, None], images.reshape(count, -1)], axis=1)
    folder.mkdir(exist_ok=True)
    for name in ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"):
        (folder / name).write_bytes(records.tobytes())
    return images, labels


def test_cifar10_binary_version_equals_its_arrays(tmp_path):
    images, labels = _write_binary(tmp_path / "cifar-10-batches-bin")
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    for part in ("train", "test"):
        np.savez(arrays / f"cifar10_{part}.npz", images=images.transpose(0, 2, 3, 1), labels=labels)
    binary, npz = load_data(f"cifar10:{tmp_path}"), load_data(f"cifar10:{arrays}")
    assert size_of(binary.train) == 60
    assert torch.equal(binary.test[5][0], npz.test[5][0])
    assert binary.test[5][1] == npz.test[5][1] == 5


def test_pickled_cifar10_is_not_opened(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"pickle")
    with pytest.raises(InputError, match="download the binary version"):
        load_data(f"cifar10:{tmp_path}")


def test_an_npz_with_objects_is_not_opened(tmp_path):
    for part in ("train", "test"):
        np.savez(tmp_path / f"cifar10_{part}.npz", images=np.array([{}], dtype=object), labels=np.zeros(1))
    with pytest.raises(InputError, match="cannot read"):
        load_data(f"cifar10:{tmp_path}")


def _write_images(folder, classes=("cat", "dog"), count=12):
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name / f"{number}.png")


def test_imagefolder_flat_and_with_parts(tmp_path):
    _write_images(tmp_path / "flat")
    flat = load_data(f"imagefolder:{tmp_path / 'flat'}", size=32)
    assert (flat.num_classes, flat.input_shape) == (2, (3, 32, 32))
    _write_images(tmp_path / "parts" / "train")
    _write_images(tmp_path / "parts" / "val", count=2)
    parts = load_data(f"imagefolder:{tmp_path / 'parts'}", size=32)
    assert size_of(parts.test) == 4
    assert size_of(parts.train) == 18


def test_a_broken_image_is_named(tmp_path):
    _write_images(tmp_path / "train")
    _write_images(tmp_path / "val", count=2)
    (tmp_path / "val" / "cat" / "1.png").write_bytes(b"no image")
    data = load_data(f"imagefolder:{tmp_path}", size=32)
    with pytest.raises(InputError, match=r"data 'imagefolder:.*': item 1 failed: .*cannot identify image file"):
        list(batches(data.test, 8))


def test_imagefolder_needs_the_same_classes(tmp_path):
    _write_images(tmp_path / "train")
    _write_images(tmp_path / "val", classes=("cat", "cow"))
    with pytest.raises(InputError, match="must have the same classes"):
        load_data(f"imagefolder:{tmp_path}")


def test_factory_in_a_file(tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\ndef data():\n    return torch.zeros(20, 3, 4, 4), torch.arange(20) % 2"
    )
    data = load_data(f"{tmp_path}/own.py:data")
    assert (data.num_classes, data.input_shape, size_of(data.train)) == (2, (3, 4, 4), 12)


@pytest.mark.parametrize("wrap", [lambda pair: pair, lambda pair: TensorDataset(*pair), DataLoader])
def test_own_objects(wrap):
    pair = torch.zeros(20, 3, 4, 4), torch.arange(20) % 2
    source = wrap(TensorDataset(*pair)) if wrap is DataLoader else wrap(pair)
    assert load_data(source).input_shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("digit", UnknownNameError, "did you mean digits"),
        ("cifar10", InputError, "needs a folder"),
        ("cifar10:/nowhere", InputError, "no folder"),
        ("imagefolder:/nowhere", InputError, "no images in"),
        ("digits:/x", InputError, "takes no folder"),
        ("nowhere.py:data", InputError, "no file"),
        (7, InputError, "expected a Dataset, a DataLoader, .* got a int"),
    ],
)
def test_bad_sources(source, error, message):
    with pytest.raises(error, match=message):
        load_data(source)


def test_a_folder_alone_is_told_how_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    for source in ("photos", "./photos", str(tmp_path / "photos")):
        with pytest.raises(InputError, match=f"{source!r} is a folder: imagefolder:{source} reads images"):
            load_data(source)


def test_shape_and_class_mismatch():
    data = load_data("digits")
    model = digits_net().train()
    check_fits(model, data, name="digits_net")
    assert model.training
    with pytest.raises(InputError, match=r"images of shape \(1, 8, 8\), which model 'resnet20' does not take"):
        check_fits(resnet20(), data, name="resnet20")
    with pytest.raises(InputError, match="10 classes, model 'tiny' only 3 outputs"):
        check_fits(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), data, name="tiny")


class NoLength(Dataset):
    def __getitem__(self, index):
        return torch.zeros(3, 4, 4), 1


def test_datasets_without_a_length_are_refused():
    with pytest.raises(InputError, match=r"with a length.* got a NoLength.* list\(dataset\)"):
        load_data(NoLength())


def test_a_collate_fn_is_not_ignored():
    pairs = TensorDataset(torch.zeros(20, 3, 4, 4), torch.arange(20) % 2)
    with pytest.raises(InputError, match=r"a collate_fn of its own.* give the dataset"):
        load_data(DataLoader(pairs, collate_fn=lambda items: items))
    assert load_data(DataLoader(pairs, batch_size=None)).input_shape == (3, 4, 4)


@pytest.mark.parametrize("targets", [[None] * 20, ["a.png"] * 20, [1, 2], [{"boxes": []}] * 20])
def test_targets_that_are_no_classes_do_not_matter(targets):
    pairs = TensorDataset(torch.zeros(20, 3, 4, 4), torch.arange(20) % 2)
    pairs.targets = targets
    assert size_of(load_data(pairs).train) == 12


def test_a_pair_without_usable_labels_has_no_number_of_classes():
    assert load_data((torch.zeros(20, 3, 4, 4), torch.full((20,), -1))).num_classes is None
