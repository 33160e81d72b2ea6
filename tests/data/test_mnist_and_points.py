"""MNIST in both of its forms, and point clouds made by the seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nasprune.data import load_data
from nasprune.data.pointclouds import SHAPES, pointclouds
from nasprune.data.splits import size_of
from nasprune.errors import InputError
from tests.assets import ASSETS, needs_assets

IMAGES = np.arange(40 * 28 * 28, dtype=np.uint8).reshape(40, 28, 28)
LABELS = np.arange(40, dtype=np.uint8) % 10


def write_idx(folder) -> None:
    for part in ("train", "t10k"):
        head = b"".join(size.to_bytes(4, "big") for size in IMAGES.shape)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(bytes((0, 0, 8, 3)) + head + IMAGES.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            bytes((0, 0, 8, 1)) + (40).to_bytes(4, "big") + LABELS.tobytes()
        )


def test_both_forms_of_mnist_are_the_same_images(tmp_path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    write_idx(raw)
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    for part in ("train", "test"):
        np.savez(arrays / f"mnist_{part}.npz", images=IMAGES, labels=LABELS)
    first, second = load_data(f"mnist:{tmp_path}"), load_data(f"mnist:{arrays}")
    assert torch.equal(first.test.images, second.test.images)
    assert first.test.images[3, 0, 1, 2] == IMAGES[3, 1, 2] / np.float32(255)
    assert (first.test[13][1], first.input_shape) == (3, (1, 28, 28))
    assert size_of(first.train) + size_of(first.calibration) + size_of(first.validation) == 40


def test_bad_mnist_is_said(tmp_path) -> None:
    with pytest.raises(InputError, match="no MNIST train images"):
        load_data(f"mnist:{tmp_path}")
    with pytest.raises(InputError, match="needs a folder"):
        load_data("mnist")
    write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="expected an IDX file of bytes with 3 axes"):
        load_data(f"mnist:{tmp_path}")


@needs_assets
def test_the_digits_at_hand() -> None:
    data = load_data(f"mnist:{ASSETS}")
    assert (size_of(data.test), size_of(data.train), size_of(data.validation)) == (1500, 5250, 875)


def test_point_clouds_are_the_same_for_a_seed_and_lie_in_the_unit_sphere() -> None:
    first, second, other = (pointclouds(seed, per_class=4, points=64) for seed in (0, 0, 1))
    assert torch.equal(first.train.images, second.train.images)
    assert not torch.equal(first.train.images, other.train.images)
    assert first.input_shape == (3, 64)
    assert first.num_classes == len(SHAPES) == 10
    reach = first.train.images.norm(dim=1).amax(1)
    assert bool(((reach > 0.9) & (reach < 1.2)).all())


@pytest.mark.parametrize("name", SHAPES)
def test_points_lie_on_their_surface(name: str) -> None:
    points = SHAPES[name](np.random.default_rng(0), 500)
    assert points.shape == (500, 3)
    across, level = np.hypot(points[:, 0], points[:, 1]), points[:, 2]
    if name == "sphere":
        assert np.allclose(across**2 + level**2, 1)
    if name == "box":
        assert np.allclose((np.abs(points) / np.abs(points).max(axis=0)).max(axis=1), 1)
    if name == "cylinder":
        assert ((np.isclose(across, 1)) | np.isclose(np.abs(level), np.abs(level).max())).all()
    if name == "torus":
        middle = (across.max() + across.min()) / 2
        assert np.hypot(across - middle, level) == pytest.approx((across.max() - across.min()) / 2, rel=0.02)
    if name == "pyramid":
        inside = level / level.max() + np.abs(points[:, :2]).max(axis=1)
        assert inside[level > 0] == pytest.approx(1, abs=0.05)
    if name == "annulus":
        assert not level.any()


def test_pointclouds_takes_no_folder() -> None:
    with pytest.raises(InputError, match="`pointclouds` takes no folder"):
        load_data("pointclouds:here")
