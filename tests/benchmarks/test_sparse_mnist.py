"""The binary baseline computes what its paper says."""

from __future__ import annotations

import torch
from torch.nn import functional

from benchmarks.binary import BinaryConv2d, BinaryLeNet5, BinaryLinear, packed_bytes


def test_binary_layers_are_scaled_products_of_signs() -> None:
    torch.manual_seed(0)
    layer, x = BinaryConv2d(3, 5, 3, bias=False), torch.randn(2, 3, 6, 6)
    patches = functional.unfold(x, 3)
    signs = layer.weight.sign().flatten(1) @ patches.sign()
    size = functional.unfold(x.abs().mean(1, keepdim=True), 3).mean(1, keepdim=True)
    wanted = signs * size * layer.weight.abs().flatten(1).mean(1)[:, None]
    assert torch.allclose(layer(x).flatten(2), wanted, atol=1e-5)
    flat = BinaryLinear(4, 2, bias=False)
    y = torch.tensor([[0.5, -2.0, 0.1, 3.0]], requires_grad=True)
    flat(y).sum().backward()
    assert flat.weight.grad.abs().sum() > 0
    assert torch.allclose(flat(y), (y.sign() @ flat.weight.sign().T) * y.abs().mean() * flat.weight.abs().mean(1))


def test_binary_weights_take_a_bit() -> None:
    net = BinaryLeNet5()
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    rest = sum(p.numel() for p in net.parameters()) - 25_000 - 400_000
    assert packed_bytes(net) == (25_000 + 400_000 + 32 * 550) // 8 + 4 * rest
