"""Whether the dense network minds mirror images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nasprune.train.alike import mirrored_alike
from nasprune.train.nearness import Nearness

IMAGES = torch.randn(200, 3, 16, 16, generator=torch.Generator().manual_seed(3))


class Left(nn.Module):
    """Two classes, by whether something bright lies in the left half."""

    def forward(self, x: Tensor) -> Tensor:
        return (x[..., :8].amax((1, 2, 3)) - 1)[:, None] * torch.tensor([1.0, -1.0])


def changed(dense: nn.Module, images: Tensor, *, speaks: bool = True) -> Tensor:
    change = mirrored_alike(Nearness(dense, (), None, speaks), images)
    return change(images, torch.Generator().manual_seed(0))


def test_images_are_mirrored_where_the_dense_net_says_the_same_of_both() -> None:
    found = changed(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), IMAGES)
    same = [torch.equal(a, b) for a, b in zip(found, IMAGES, strict=True)]
    assert 60 < sum(same) < 140
    assert all(torch.equal(a, b.flip(2)) for a, b, kept in zip(found, IMAGES, same, strict=True) if not kept)


def test_a_mirror_image_of_which_it_says_something_else_is_not_shown() -> None:
    images = torch.zeros(200, 1, 16, 16)
    images[..., 5] = 2.0
    assert torch.equal(changed(Left(), images), images)


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
