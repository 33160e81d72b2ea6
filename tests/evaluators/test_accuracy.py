from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nasprune.base import EvaluationTask
from nasprune.errors import InputError
from nasprune.evaluators.accuracy import Accuracy
from nasprune.refit.recalibrate import recalibrate
from tests.fakes import priced, resnet_like
from tests.nets import TinyResNet, images


@dataclass(frozen=True)
class Given:
    net: nn.Module
    refitted: bool = False
    made: list[nn.Module] = field(default_factory=list)
    keep: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"stem": (0,)})
    drop: tuple[str, ...] = ()
    zeroed: bool = False

    def model(self) -> nn.Module:
        self.made.append(copy.deepcopy(self.net))
        return self.made[-1]


def task(calibration: tuple[Tensor, Tensor] | None, validation: tuple[Tensor, Tensor] | None) -> EvaluationTask:
    graph = resnet_like(1, 1, 8)
    data = [TensorDataset(*part) if part is not None else None for part in (calibration, validation)]
    return EvaluationTask(graph, nn.Identity(), {}, priced(graph, "50%"), *data)


def test_it_is_top_1_after_recalibration():
    net, calibration, validation = TinyResNet().train(), images(64, seed=1), images(50, seed=2)
    expected = copy.deepcopy(net)
    recalibrate(expected, [calibration[0]])
    with torch.inference_mode():
        right = expected.eval()(validation[0]).argmax(1) == validation[1]
    assert Accuracy(task(calibration, validation)).evaluate(Given(net)) == float(right.double().mean())


def test_it_is_repeatable_and_touches_only_the_candidates_own_copy():
    net = TinyResNet()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    evaluator = Accuracy(task(images(64), images(30)))
    candidate = Given(net)
    assert evaluator.evaluate(candidate) == evaluator.evaluate(candidate)
    assert len(candidate.made) == 2
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_without_data_it_is_refused():
    with pytest.raises(InputError, match="needs data"):
        Accuracy(task(None, images(8)))


class Read(TensorDataset):
    """Counts how often an item is read."""

    times = 0

    def __getitem__(self, index):
        self.times += 1
        return super().__getitem__(index)


def test_calibration_images_are_read_for_networks_that_were_not_refitted_alone():
    calibration = Read(*images(8, seed=1))
    evaluator = Accuracy(replace(task(images(8, seed=1), images(8, seed=2)), calibration=calibration))
    evaluator.evaluate(Given(TinyResNet(), refitted=True))
    assert calibration.times == 0
    evaluator.evaluate(Given(TinyResNet()))
    evaluator.evaluate(Given(TinyResNet()))
    assert calibration.times == 1 + 8, "one tells how large images are"
