from __future__ import annotations

import torch
from torch import nn

from nasprune.data import ArrayDataset
from nasprune.refit.recalibrate import calibration_batches, calibration_inputs, recalibrate
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


def test_what_is_drawn_does_not_depend_on_an_order_by_class():
    count = 4000
    labels = torch.arange(10).repeat_interleave(count // 10)
    data = ArrayDataset(labels.float()[:, None, None, None].expand(-1, 1, 2, 2), labels)
    for drawn in (calibration_inputs(data, 256), torch.cat(list(calibration_batches(data)))):
        per_class = torch.bincount(drawn[:, 0, 0, 0].long(), minlength=10)
        assert per_class.min() > 0.5 * len(drawn) / 10
    assert len(calibration_inputs(data, 256)) == 256
    assert all(len(batch.unique()) == 10 for batch in calibration_batches(data))
    assert torch.equal(calibration_inputs(data, 256), calibration_inputs(data, 256))
    assert len(calibration_inputs(data.subset(range(10)), 256)) == 10
