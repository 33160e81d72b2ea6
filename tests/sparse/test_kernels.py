"""Kernels shared within input channels: how many each gets, what is stored, and what comes back."""

from __future__ import annotations

import pytest
import torch

import nasprune
from nasprune.errors import InputError
from nasprune.sparse.kernels import centre_counts, shared_kernels
from tests.nets import TinyResNet


def test_the_papers_formula():
    indicator = torch.tensor([0.0, 0.2, 0.25, 0.5, 0.75, 0.76, 1.0])
    # G = 4, T = 1: floor(v G) = 0 gives none, ceil(v G) = 4 gives all, else 64 / 2^(4 - ceil(v G) + 1)
    assert centre_counts(indicator, 64, 4, 1) == [0, 0, 4, 8, 16, 64, 64]
    assert centre_counts(torch.tensor([0.5]), 3, 4, 1) == [1]


def test_what_is_stored_comes_back():
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(3, 9, generator=generator)
    kernels = kinds[torch.randint(3, (16, 2), generator=generator)]
    found = shared_kernels(torch.cat([kernels, kernels[:, :1]], 1), [3, 16, 0])
    back = found.expanded()
    assert torch.allclose(back[:, :2], kernels, atol=1e-6)  # three kinds of kernels need three centres
    assert not back[:, 2].any()
    assert [len(own) for own in found.centres] == [3, 16, 0]
    assert found.bits == 32 * 9 * (3 + 16) + 16 * (2 + 4)
    assert (found.indices[2] == -1).all()


def test_fewer_centres_are_further_away():
    kernels = torch.randn(32, 1, 9, generator=torch.Generator().manual_seed(1))
    off = [float((shared_kernels(kernels, [count]).expanded() - kernels).norm()) for count in (1, 4, 16, 32)]
    assert off == sorted(off, reverse=True)
    assert off[-1] == 0


def test_numbers_out_of_range_are_refused():
    with pytest.raises(InputError, match="must be at least 1"):
        centre_counts(torch.tensor([0.5]), 8, 0, 0)
    with pytest.raises(InputError, match=r"must be in \[0, 1\]"):
        centre_counts(torch.tensor([1.5]), 8, 4, 0)


def test_a_network_with_shared_kernels_computes_with_what_is_stored():
    model = TinyResNet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = nasprune.share_kernels(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for path, shared in found.layers.items():
        weight = found.model.get_submodule(path).weight
        assert torch.equal(weight.flatten(2), shared.expanded())
    numbers = sum(value.numel() for value in model.parameters())
    stored = sum(model.get_submodule(path).weight.numel() for path in found.layers)
    assert found.bits == 32 * (numbers - stored) + sum(shared.bits for shared in found.layers.values())
    assert found.ratio > 1
    assert nasprune.share_kernels(model, compression=2).ratio > found.ratio
    with pytest.raises(InputError, match="there is nothing to do"):
        nasprune.share_kernels(torch.nn.Linear(3, 3))
