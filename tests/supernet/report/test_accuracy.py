"""How often a supernet is right is measured on labelled images alone, and on class numbers alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nasprune.errors import InputError
from nasprune.supernet.report.accuracy import accuracy

CPU = torch.device("cpu")
LOGITS = torch.eye(4)[torch.arange(12) % 4]
CLASSES = torch.arange(12) % 4


def reached(labels: object) -> float:
    return accuracy(nn.Identity(), [(LOGITS, labels)], CPU, seed=0)


def test_images_without_a_label_are_left_out() -> None:
    some = torch.where(torch.arange(12) % 2 == 0, CLASSES, -1)
    assert reached(CLASSES) == reached(some) == 1.0
    assert reached(torch.where(torch.arange(12) < 3, (CLASSES + 1) % 4, CLASSES)) == 0.75
    with pytest.raises(InputError, match="no validation image has one"):
        reached(torch.full((12,), -1))


@pytest.mark.parametrize("labels", [torch.rand(12), torch.eye(4)[CLASSES], CLASSES[:, None], [{"boxes": LOGITS}]])
def test_labels_that_are_no_class_numbers_are_refused(labels: object) -> None:
    with pytest.raises(InputError, match=r"accuracy needs class numbers of shape \(12,\), got a"):
        reached(labels)
