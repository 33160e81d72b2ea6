"""What images polishing shows: mirrored where the dense network does not mind, and blended."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import nasprune
from nasprune.data.augment import blended
from nasprune.train.alike import unlabelled
from nasprune.train.nearness import Nearness

IMAGES = torch.randn(200, 3, 16, 16, generator=torch.Generator().manual_seed(3))


class Left(nn.Module):
    """Two classes, by whether something bright lies in the left half."""

    def forward(self, x: Tensor) -> Tensor:
        return (x[..., :8].amax((1, 2, 3)) - 1)[:, None] * torch.tensor([1.0, -1.0])


class Tokens(nn.Module):
    """Two classes, of the numbers of tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.eye(9)[x].mean((1, 2, 3))[:, :2]


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


def test_bytes_are_blended_to_bytes() -> None:
    images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found, wanted = (blended(given, torch.Generator().manual_seed(0)) for given in (images, images.float()))
    assert found.dtype == torch.uint8
    assert torch.equal(found.float(), wanted.round())
    assert torch.equal(found[:32], images[:32])
    assert not torch.equal(found, images)


class Bytes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return 10 * self.head(self.conv(x.float() / 255 - 0.5).relu().mean((2, 3)))


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_networks_that_take_bytes_are_polished_and_tuned_on_blends(mix: str) -> None:
    torch.manual_seed(0)
    images, net = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8), Bytes()
    data = images, torch.arange(60) % 3
    found = nasprune.search(net, images[:1], "60%", data=data, allow_chance=True, reconstruct="none")
    assert nasprune.polish(found, net, data, steps=8).steps == 8
    tuned = nasprune.finetune(net, data, epochs=1, mix=mix, device="cpu")
    assert not torch.equal(tuned.conv.weight, net.conv.weight)


@pytest.mark.parametrize(
    ("dense", "images", "speaks"),
    [
        (nn.Flatten(), torch.randn(8, 5), True),
        (nn.Conv2d(3, 2, 1), IMAGES, True),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 1)), IMAGES, True),
        (nn.Identity(), IMAGES, False),
        (Tokens(), torch.randint(0, 9, (8, 1, 4, 4)), True),
    ],
)
def test_nothing_is_changed_where_there_are_no_images_or_classes(
    dense: nn.Module, images: Tensor, speaks: bool
) -> None:
    assert torch.equal(changed(dense, images, speaks=speaks), images)
