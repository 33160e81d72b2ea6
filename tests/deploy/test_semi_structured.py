from __future__ import annotations

import pytest
import torch
from torch import nn

import nasprune
from nasprune.deploy import semi_structured as module
from nasprune.errors import InputError


def net(dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 6))
    with torch.no_grad():
        made[0].weight.view(-1, 4)[:, 1:3] = 0
    return made.to(dtype)


@pytest.fixture
def _here(monkeypatch):
    """As on a device that has kernels: the conversion gives the tensor itself, and refuses rows as torch does."""

    def convert(weight: torch.Tensor) -> torch.Tensor:
        if len(weight) % 32:
            raise RuntimeError("Both dimensions must be a multiple of (32, 64)\nmore")
        return weight.clone()

    monkeypatch.setattr(module, "DEVICES", ("cuda", "cpu"))
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", convert)


def test_where_the_device_has_no_kernels_that_is_said():
    with pytest.raises(InputError, match="the network is on cpu, and torch has kernels for 2:4 zeros on CUDA devices"):
        nasprune.semi_structured(net())
    with pytest.raises(InputError, match="has no linear layers of torch's own"):
        nasprune.semi_structured(nn.Conv2d(4, 4, 3))


@pytest.mark.usefixtures("_here")
def test_layers_with_two_of_four_are_converted_and_the_others_told():
    before = net()
    with torch.no_grad():
        before[4].weight.view(-1, 4)[:, 1:3] = 0
    weight = before[0].weight
    found = nasprune.semi_structured(before)
    assert found.layers == ("0",)
    assert before[0].weight is weight
    assert not found.model[0].weight.requires_grad
    assert "pattern='2:4'" in found.left["2"]
    assert found.left["4"] == "torch says: Both dimensions must be a multiple of (32, 64)"
    x = torch.randn(3, 64, dtype=torch.bfloat16)
    assert torch.equal(found.model(x), before(x))


@pytest.mark.usefixtures("_here")
def test_single_precision_is_refused_with_what_to_do():
    with pytest.raises(InputError, match=r"no linear layer can .*0: its numbers are in single precision; write model"):
        nasprune.semi_structured(net(torch.float32))
