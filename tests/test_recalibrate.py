from __future__ import annotations

import torch
from torch import nn

from nasprune.recalibrate import recalibrate
from tests.nets import TinyResNet, images


def test_statistics_are_the_average_over_the_batches():
    norm = nn.BatchNorm1d(3)
    batches = [torch.randn(32, 3) * 4 + 1, torch.randn(32, 3)]
    recalibrate(norm, batches)
    torch.testing.assert_close(norm.running_mean, torch.stack([batch.mean(0) for batch in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([batch.var(0) for batch in batches]).mean(0))


def test_nothing_but_the_statistics_changes():
    model = TinyResNet().train()
    model.blocks[0].eval()
    model.bn.momentum = 0.3
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recalibrate(model, images()[0].split(20))
    assert modes == [module.training for module in model.modules()]
    assert model.bn.momentum == 0.3
    for name, value in model.state_dict().items():
        running = name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")
        assert running or torch.equal(value, before[name])
    assert not torch.equal(model.bn.running_mean, before["bn.running_mean"])


def test_the_order_of_batches_does_not_matter():
    first, second = TinyResNet(), TinyResNet()
    batches = images()[0].split(20)
    recalibrate(first, batches)
    recalibrate(second, batches[::-1])
    torch.testing.assert_close(first.bn.running_var, second.bn.running_var)


def test_without_batch_norms_or_batches_nothing_happens():
    calls = []
    model = nn.Linear(2, 2)
    model.register_forward_hook(lambda *_: calls.append(1))
    recalibrate(model, [torch.zeros(2, 2)])
    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(5.0)
    recalibrate(norm, [])
    assert not calls
    assert norm.running_mean.tolist() == [5.0, 5.0]
