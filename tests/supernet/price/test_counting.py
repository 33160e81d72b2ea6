"""Counts of single modules, in both conventions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nasprune.errors import InputError
from nasprune.supernet.price.counting import Counts, count_module


def test_a_batch_norm_counts_for_fvcore_only():
    block = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    products = 8 * 3 * 9 * 16 * 16
    assert count_module(block, (64, 3, 16, 16)) == Counts(products, products + 2 * 8 * 256, 8 * 27 + 16)
    assert block.training


def test_a_linear_layer_counts_without_its_bias():
    assert count_module(nn.Linear(5, 7), (1, 5)) == Counts(35, 35, 42)


def test_operations_without_weights_are_free():
    for module in (nn.Identity(), nn.MaxPool2d(3, 1, 1), nn.ReLU()):
        assert count_module(module, (1, 4, 9, 9)) == Counts()


def test_counts_are_an_additive_record():
    assert (Counts(1, 2, 3) + Counts(4, 5, 6) - Counts(1, 1, 1)) * 2 == Counts(8, 12, 16)
    assert Counts(1, 2, 3)["fvcore"] == 2
    with pytest.raises(InputError, match="macs, fvcore, params"):
        Counts()["flops"]


def test_weights_that_are_no_parameters_are_left_as_found():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1, bias=False)
            self.alphas = [torch.zeros(2, requires_grad=True)]

        def forward(self, x):
            shares = self.alphas[0].softmax(0)
            return shares[0] * self.conv(x) + shares[1] * x

    net = Mixed()
    assert count_module(net, (1, 2, 3, 3)) == Counts(36, 36, 4)
    assert net.alphas[0].requires_grad


def test_what_does_not_run_is_refused_with_its_shape():
    with pytest.raises(InputError, match=r"Conv2d on an input of shape \(1, 4, 8, 8\)"):
        count_module(nn.Conv2d(3, 8, 3), (1, 4, 8, 8))


def test_weights_in_a_dict_are_left_as_found():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1, bias=False)
            self.arch = {"a0": torch.zeros(2, requires_grad=True)}

        def forward(self, x):
            shares = self.arch["a0"].softmax(0)
            return shares[0] * self.conv(x) + shares[1] * x

    net = Mixed()
    assert count_module(net, (1, 2, 3, 3)) == Counts(36, 36, 4)
    assert net.arch["a0"].requires_grad
    assert net.conv.weight.requires_grad


def test_modules_that_read_integers():
    assert count_module(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3)), (2, 5)) == Counts(60, 60, 36 + 15)
