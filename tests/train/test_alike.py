"""Which changes of images the dense network does not mind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nasprune.train.alike import changes_alike
from nasprune.train.nearness import Nearness

IMAGES = torch.randn(200, 3, 16, 16, generator=torch.Generator().manual_seed(3))


class Where(nn.Module):
    """Two classes, by whether the bright column lies in `half` of the image."""

    def __init__(self, half: slice) -> None:
        super().__init__()
        self.half = half

    def forward(self, x: Tensor) -> Tensor:
        return (x[..., self.half].amax((1, 2, 3)) - 1)[:, None] * torch.tensor([1.0, -1.0])


def changed(dense: nn.Module, images: Tensor, *, speaks: bool = True) -> Tensor:
    change = changes_alike(Nearness(dense, (), None, speaks), images)
    return change(images, torch.Generator().manual_seed(0))


def column(*at: int) -> Tensor:
    """Images (n, 1, 16, 16) with a bright column each."""
    images = torch.zeros(len(at), 1, 16, 16)
    for image, number in zip(images, at, strict=True):
        image[..., number] = 2.0
    return images


def test_a_network_that_does_not_mind_sees_images_shifted_and_mirrored() -> None:
    blind = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    images = column(*[5] * 200).repeat(1, 2, 1, 1)
    found = changed(blind, images).amax((1, 2)).argmax(1)
    assert set(found.tolist()) == {5 + shift for shift in range(-2, 3)} | {10 + shift for shift in range(-2, 3)}
    assert 60 < int((found < 8).sum()) < 140


def test_a_mirror_image_of_which_it_says_something_else_is_not_shown() -> None:
    found = changed(Where(slice(0, 8)), column(*[5] * 200)).amax((1, 2)).argmax(1)
    assert set(found.tolist()) == {5 + shift for shift in range(-2, 3)}


def test_a_shift_of_which_it_says_something_else_is_not_shown() -> None:
    found = changed(Where(slice(5, 11)), column(*[5, 10] * 100)).amax((1, 2)).argmax(1)
    assert set(found.tolist()) == {5, 10}
    assert not torch.equal(changed(Where(slice(5, 11)), column(*[5, 10] * 100)), column(*[5, 10] * 100))


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


def test_images_of_a_few_pixels_are_not_shifted() -> None:
    blind = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    images = torch.randn(50, 3, 6, 6)
    for before, after in zip(images, changed(blind, images), strict=True):
        assert torch.equal(after, before) or torch.equal(after, before.flip(2))
