"""A training that is killed goes on to the same weights bit for bit, and only with the same settings."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nasprune.errors import InputError
from nasprune.train.finetune import finetune
from nasprune.train.progress import TrainingStep
from nasprune.train.resume import FILE
from tests.forks import forked

IMAGES = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
OPTIONS = {"epochs": 4, "batch_size": 16, "lr": 0.05}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


class Killed(Exception):
    pass


def weights(model: nn.Module) -> list[Tensor]:
    return list(model.state_dict().values())


@cache
def unbroken(**options: object) -> list[Tensor]:
    """The weights after a training with these options that nothing ended."""
    return weights(finetune(net(), IMAGES, **{**OPTIONS, **options}))


def assert_as_unbroken(model: nn.Module, **options: object) -> None:
    assert all(torch.equal(a, b) for a, b in zip(weights(model), unbroken(**options), strict=True))


@pytest.mark.parametrize("options", [{}, {"optimizer": "adamw"}, {"lr": 1e4}, {"choose": "best"}], ids=str)
@pytest.mark.parametrize("at", [1, 5, 11])
def test_it_goes_on_bit_for_bit(tmp_path: Path, options: dict[str, object], at: int) -> None:
    seen = 0

    def kill(step: TrainingStep) -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            raise Killed

    with pytest.raises(Killed):
        finetune(net(), IMAGES, **{**OPTIONS, **options}, out=tmp_path, on_step=kill)
    epochs: list[object] = []
    resumed = finetune(net(), IMAGES, **{**OPTIONS, **options}, out=tmp_path, on_epoch=epochs.append)
    assert len(epochs) <= 4
    assert_as_unbroken(resumed, **options)
    again = finetune(net(), IMAGES, **{**OPTIONS, **options}, out=tmp_path, on_step=kill)
    assert_as_unbroken(again, **options)
    assert len(list(tmp_path.iterdir())) == 2


def test_another_training_or_damaged_files_are_refused(tmp_path: Path) -> None:
    finetune(net(), IMAGES, **OPTIONS, out=tmp_path)
    with pytest.raises(InputError, match=r"is of another training .lr was '0.05', now '0.1'.; choose another folder"):
        finetune(net(), IMAGES, **{**OPTIONS, "lr": 0.1}, out=tmp_path)
    tensors = next(tmp_path.glob("*.safetensors"))
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-1] + b"x")
    with pytest.raises(InputError, match=r"tensors .* are damaged or from another save"):
        finetune(net(), IMAGES, **OPTIONS, out=tmp_path)
    tensors.write_bytes(content)
    record = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**record, "number": 7}))
    with pytest.raises(InputError, match="was changed after it was written"):
        finetune(net(), IMAGES, **OPTIONS, out=tmp_path)


def test_a_killed_process_leaves_what_can_be_gone_on_with(tmp_path: Path) -> None:
    def train() -> None:
        finetune(net(), IMAGES, **OPTIONS, out=tmp_path, on_epoch=lambda epoch: print(epoch.number, flush=True))

    trained = forked(train, tmp_path)
    for _ in range(random.Random(0).randint(1, 3)):
        trained.written.readline()
    trained.process.kill()
    trained.ended()
    assert_as_unbroken(finetune(net(), IMAGES, **OPTIONS, out=tmp_path))
