"""A training that is killed goes on to the same weights bit for bit, and only with the same settings."""

from __future__ import annotations

import json
import logging
import random
import threading
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from nasprune.data.identity import of_made
from nasprune.errors import InputError
from nasprune.train import training
from nasprune.train.finetune import finetune
from nasprune.train.progress import TrainingStep
from nasprune.train.resume import Keeper
from tests.forks import forked

IMAGES = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
FILE = Keeper(None, {}).file
OPTIONS = {"epochs": 4, "batch_size": 16, "lr": 0.05}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


class Killed(Exception):
    pass


class Drawing(Dataset[tuple[Tensor, int]]):
    """Items with noise from all three global generators."""

    def __len__(self) -> int:
        return len(IMAGES[1])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.randn(6) + random.gauss(0, 1) + np.random.normal()  # noqa: NPY002
        return IMAGES[0][index] + 0.1 * noise.float(), int(IMAGES[1][index])


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


@pytest.mark.parametrize("options", [{}, {"lr": 1e4}, {"accumulate": 2, "optimizer": "adamw"}], ids=str)
@pytest.mark.parametrize("at", [3, 6, 11])
def test_a_long_epoch_is_gone_on_with_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], at: int
) -> None:
    monkeypatch.setattr(training, "SEGMENT", 1)
    given = {**OPTIONS, "batch_size": 8, **options}
    augment = {"augment": lambda images, generator: images + torch.randn(images.shape, generator=generator)}
    whole = weights(finetune(net(), Drawing(), **given, **augment))
    taken: list[TrainingStep] = []

    def kill(step: TrainingStep) -> None:
        taken.append(step)
        if len(taken) == at:
            raise Killed

    options_of_run = {**given, **augment, "out": tmp_path, "save_every": 1e-9}
    with pytest.raises(Killed):
        finetune(net(), Drawing(), **options_of_run, on_step=kill)
    killed_at, again = taken[-1], list[TrainingStep]()
    resumed = finetune(net(), Drawing(), **options_of_run, on_step=again.append)
    assert (again[0].epoch, again[0].step) == (killed_at.epoch, killed_at.step)
    assert (again[0].loss, again[0].accuracy) == (killed_at.loss, killed_at.accuracy)
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), whole, strict=True))
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_left_of_an_epoch_that_was_whole_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SEGMENT", 1)
    with monkeypatch.context() as inside:
        inside.setattr(Keeper, "drop", lambda self: None)
        finetune(net(), IMAGES, **OPTIONS, out=tmp_path, save_every=1e-9)
    assert len(list(tmp_path.iterdir())) == 4
    (tmp_path / "finetune-within-00009.safetensors").touch()
    assert_as_unbroken(finetune(net(), IMAGES, **OPTIONS, out=tmp_path))
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(InputError, match=r"`save_every` must be above 0, got 0"):
        finetune(net(), IMAGES, **OPTIONS, save_every=0)


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


class Noise:
    """An augmentation that holds how strong it is."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images + self.strength * torch.randn(images.shape, generator=generator)


def strong(strength: float):
    return lambda images, generator: images + strength * torch.randn(images.shape, generator=generator)


def mask(share: float) -> dict[str, Tensor]:
    return {"0.weight": torch.rand(8, 6, generator=torch.Generator().manual_seed(0)) < share}


@pytest.mark.parametrize(
    ("before", "now", "what"),
    [
        ({"augment": Noise(0.1)}, {"augment": Noise(0.2)}, "augment"),
        ({"augment": strong(0.1)}, {"augment": strong(0.2)}, "augment"),
        ({"augment": partial(Noise(1).__call__)}, {"augment": partial(Noise(2).__call__)}, "augment"),
        ({"masks": mask(0.5)}, {}, "weights|masks"),
        ({"masks": mask(0.5)}, {"masks": mask(0.6)}, "weights|masks"),
    ],
)
def test_what_objects_hold_belongs_to_a_training(tmp_path: Path, before, now, what: str) -> None:
    first = finetune(net(), IMAGES, **OPTIONS, **before, out=tmp_path)
    assert all(map(torch.equal, weights(first), weights(finetune(net(), IMAGES, **OPTIONS, **before, out=tmp_path))))
    with pytest.raises(InputError, match=f"is of another training .({what}) was"):
        finetune(net(), IMAGES, **OPTIONS, **now, out=tmp_path)


def test_objects_are_told_by_what_they_hold_and_not_by_where_they_lie() -> None:
    class Task:
        def __init__(self, **held: object) -> None:
            vars(self).update(held)

    def seeded() -> nn.Module:
        torch.manual_seed(0)
        hooked = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
        hooked.register_forward_hook(lambda *_: None)
        return hooked

    def looped(count: int) -> Task:
        nodes = [Task() for _ in range(count)]
        for node in nodes:
            node.others = nodes
        return nodes[0]

    same = (lambda: logging.getLogger("mine"), threading.Lock, seeded, lambda: looped(30), lambda: Path("a"))
    for make in same:
        assert of_made(Task(held=make())) == of_made(Task(held=make()))
    chain: object = None
    for _ in range(3000):
        chain = [chain]
    odd = (
        chain,
        torch.eye(2).to_sparse(),
        torch.empty(2, device="meta"),
        nn.LazyLinear(3),
        torch.ones(2).requires_grad_(),
    )
    assert all(of_made(Task(held=one)) for one in odd)
    different = (
        (lambda x: x * 1.0, lambda x: x * -3.0),
        (np.array([1.0, 1.0]), np.array([20.0, 1.0])),
        (torch.float32, torch.float64),
        (Path("a"), Path("b")),
        (range(2), range(3)),
        ([[1], 2], [[1, 2]]),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (nn.Linear(2, 2), nn.Linear(2, 2)),
        (logging.getLogger("mine"), logging.getLogger("other")),
    )
    for first, second in different:
        assert of_made(Task(held=first)) != of_made(Task(held=second)), first


class Own:
    """A task whose networks give their own losses."""

    def loss_of(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(inputs), targets)

    def judged(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss_of(model, inputs, targets), (model(inputs).argmax(1) == targets).float()

    def guess_of(self, model: nn.Module) -> float:
        return 1.1


def test_a_long_epoch_of_losses_alone_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SEGMENT", 1)
    taken: list[TrainingStep] = []

    def kill(step: TrainingStep) -> None:
        taken.append(step)
        if len(taken) == 3:
            raise Killed

    given = {**OPTIONS, "batch_size": 8, "task": Own()}
    with pytest.raises(Killed):
        finetune(net(), IMAGES, **given, out=tmp_path, save_every=1e-9, on_step=kill)
    (tmp_path / "finetune-within-00042.safetensors").write_text("mine")
    tensors = tmp_path / "finetune-within-00003.safetensors"
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"damaged .* or delete '.*finetune-within.json' to begin the epoch anew"):
        finetune(net(), IMAGES, **given, out=tmp_path)
    tensors.write_bytes(content)
    again: list[TrainingStep] = []
    resumed = finetune(net(), IMAGES, **given, out=tmp_path, save_every=1e-9, on_step=again.append)
    assert again[0].step == 3
    assert all(
        torch.equal(a, b) for a, b in zip(weights(resumed), unbroken(batch_size=8, task=given["task"]), strict=True)
    )
    assert (tmp_path / "finetune-within-00042.safetensors").read_text() == "mine"


@pytest.mark.parametrize("average", [0.0, 0.98])
def test_masked_weights_are_zero_from_the_start(average: float) -> None:
    model = net()
    tuned = finetune(model, IMAGES, **OPTIONS, average=average, masks=mask(0.5))
    assert not tuned[0].weight[~mask(0.5)["0.weight"]].any()
    assert model[0].weight.all()


def test_a_killed_process_leaves_what_can_be_gone_on_with(tmp_path: Path) -> None:
    def train() -> None:
        finetune(net(), IMAGES, **OPTIONS, out=tmp_path, on_epoch=lambda epoch: print(epoch.number, flush=True))

    trained = forked(train, tmp_path)
    for _ in range(random.Random(0).randint(1, 3)):
        trained.written.readline()
    trained.process.kill()
    trained.ended()
    assert_as_unbroken(finetune(net(), IMAGES, **OPTIONS, out=tmp_path))
