"""What images polishing shows: mirrored where the dense network does not mind, and blended."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nasprune.data.augment import blended
from nasprune.train.alike import unlabelled
from nasprune.train.nearness import Nearness

IMAGES = torch.randn(200, 3, 16, 16, generator=torch.Generator().manual_seed(3))


class Left(nn.Module):
    """Two classes, by whether something bright lies in the left half."""

    def forward(self, x: Tensor) -> Tensor:
        return (x[..., :8].amax((1, 2, 3)) - 1)[:, None] * torch.tensor([1.0, -1.0])


def changed(dense: nn.Module, images: Tensor, *, speaks: bool = True) -> Tensor:
    change = unlabelled(Nearness(dense, (), None, speaks), images)
    return change(images, torch.Generator().manual_seed(0))


def left(found: Tensor, images: Tensor) -> int:
    """How many images are as they were, or mirrored."""
    return sum(torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in zip(found, images, strict=True))


def test_images_are_mirrored_where_the_dense_net_says_the_same_of_both() -> None:
    found = changed(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), IMAGES)
    same = sum(torch.equal(a, b) for a, b in zip(found, IMAGES, strict=True))
    assert 30 < same < 70
    assert left(found, IMAGES) == 100


def test_a_mirror_image_of_which_it_says_something_else_is_not_shown() -> None:
    images = torch.zeros(200, 1, 16, 16)
    images[..., 5] = torch.linspace(2, 3, 200)[:, None, None]
    found = changed(Left(), images)
    assert not found[..., torch.arange(16) != 5].any()
    assert left(found, images) >= 100


def test_a_blend_lies_between_an_image_and_another_one() -> None:
    images = torch.eye(64).reshape(64, 1, 8, 8)
    found = blended(images, torch.Generator().manual_seed(0)).flatten(1)
    assert torch.equal(found[:32], images.flatten(1)[:32])
    assert torch.allclose(found.sum(1), torch.ones(64))
    assert bool((found >= 0).all())
    assert bool(((found > 0).sum(1)[32:] <= 2).all())
    assert int(((found > 0).sum(1)[32:] == 2).sum()) > 24
    assert torch.equal(images, torch.eye(64).reshape(64, 1, 8, 8))


@pytest.mark.parametrize(
    ("dense", "images", "speaks"),
    [
        (nn.Flatten(), torch.randn(8, 5), True),
        (nn.Conv2d(3, 2, 1), IMAGES, True),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 1)), IMAGES, True),
        (nn.Identity(), IMAGES, False),
    ],
)
def test_nothing_is_changed_where_there_are_no_images_or_classes(
    dense: nn.Module, images: Tensor, speaks: bool
) -> None:
    assert torch.equal(changed(dense, images, speaks=speaks), images)
