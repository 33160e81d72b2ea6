"""Networks with a class for every position are trained, measured and cut like classifiers."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

import nasprune
from nasprune.data.augment import flip_and_shift
from nasprune.errors import InputError
from nasprune.train.measures import accuracy, judged
from nasprune.train.targets import Classes

CLASSES = 3


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, CLASSES, 1)
        ).eval()


def data(count: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 1, 6, 6) of noise; the class of a position is how bright it is, that of the border does not count."""
    images = torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    masks = torch.bucketize(images[:, 0], torch.tensor([-0.5, 0.5]))
    masks[:, 0] = -1
    return images, masks


def test_it_is_trained_and_measured_by_positions(caplog) -> None:
    images, masks = data()
    with caplog.at_level(logging.ERROR):
        tuned = nasprune.finetune(net(), (images, masks), epochs=8, lr=0.3, batch_size=20)
    pair = torch.utils.data.TensorDataset(images, masks)
    assert accuracy(tuned, pair) > 0.8 > accuracy(net(), pair)
    with torch.no_grad():
        outputs = tuned(images)
    known = masks >= 0
    assert accuracy(tuned, pair) == pytest.approx(float((outputs.argmax(1) == masks)[known].float().mean()))
    assert judged(tuned, pair, batch_size=60).loss == pytest.approx(
        float(nn.functional.cross_entropy(outputs, masks, ignore_index=-1)), rel=1e-4
    )


def test_it_learns_from_a_teacher_and_is_pruned_in_one_call(caplog) -> None:
    images, masks = data()
    dense = nasprune.finetune(net(), (images, masks), epochs=8, lr=0.3, batch_size=20)
    for strategy in (None, "soft"):
        found = nasprune.prune(
            dense, images[:1], "60%", data=(images, masks), epochs=3, strategy=strategy, batch_size=20
        )
        assert found.report.measured["validation accuracy fine-tuned"] > 0.7
        assert found.report.cut.flops <= 0.6 * found.report.dense.flops


def test_what_does_not_fit_is_said() -> None:
    images, masks = data()
    for labels, message in (
        (masks[:, :3], r"class numbers of shape \(\d+, 6, 6\), got labels of shape \(\d+, 3, 6\)"),
        (masks + 1, "labels go up to 3, and the model has 3 outputs"),
        (masks.float(), "are trained with as many numbers, got labels of shape"),
    ):
        with pytest.raises(InputError, match=message):
            nasprune.finetune(net(), (images, labels), epochs=1)
    with pytest.raises(InputError, match="`augment` changes images alone"):
        nasprune.finetune(net(), (images, masks), epochs=1, augment=flip_and_shift)


@pytest.mark.parametrize("kind", [np.uint8, np.int32])
def test_masks_of_a_data_set_may_be_of_any_whole_numbers(kind) -> None:
    images, masks = data(40)
    items = [(image, mask) for image, mask in zip(images, (masks + 1).clamp(max=2).numpy(), strict=True)]
    given = [(image, mask.astype(kind)) for image, mask in items]
    tuned, same = (nasprune.finetune(net(), one, epochs=1, device="cpu") for one in (given, items))
    assert torch.equal(tuned[0].weight, same[0].weight)
    assert not torch.equal(tuned[0].weight, net()[0].weight)


def test_a_batch_in_which_nothing_counts_changes_nothing() -> None:
    outputs = torch.randn(2, CLASSES, 4, 4, requires_grad=True)
    labels = torch.full((2, 4, 4), -1)
    Classes().loss(outputs, labels).backward()
    assert not outputs.grad.any()
    assert not Classes().score(outputs, labels).any()
