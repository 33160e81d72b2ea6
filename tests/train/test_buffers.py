"""What is trained are all parameters and buffers, whatever the network's state dict says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import nasprune
from nasprune.common.states import own_tensors
from nasprune.errors import InputError
from nasprune.models.weights import to_bytes
from nasprune.train import training, tuner
from nasprune.train.measures import Judged, accuracy
from nasprune.train.progress import Epoch

LABELS = torch.arange(60) % 3
NOISE = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
IMAGES = NOISE + torch.eye(3, 6)[LABELS] * 3 + 20, LABELS
OPTIONS = {"epochs": 3, "batch_size": 16, "lr": 0.05, "device": "cpu"}


class Norm(nn.Module):
    """A batch norm whose statistics are not part of the state dict."""

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6), persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.lerp_(x.mean(0).detach(), 0.5)
            return x - x.mean(0)
        return x - self.mean


def net(persistent: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Norm(persistent), nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


class Copying(nn.Linear):
    """Its state dict gives copies, as of modules that gather or rename there."""

    def state_dict(self, *args, **kwargs):
        return {name: value.detach().clone() for name, value in super().state_dict(*args, **kwargs).items()}


def assert_same(first: nn.Module, second: nn.Module) -> None:
    own, other = own_tensors(first), own_tensors(second)
    assert own.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in own.items())


def test_what_is_returned_is_what_was_judged(caplog) -> None:
    epochs: list[Epoch] = []
    tuned = nasprune.finetune(net(), IMAGES, **OPTIONS, on_epoch=epochs.append)
    assert float(tuned[0].mean.mean()) > 15
    assert accuracy(tuned, [(x, int(y)) for x, y in zip(*IMAGES, strict=True)]) > 0.8
    assert "the buffers '0.mean' have other values than before, and no file holds them" in caplog.text
    caplog.clear()
    assert_same(tuned, nasprune.finetune(net(persistent=True), IMAGES, **OPTIONS))
    assert "buffers" not in caplog.text


def test_a_state_dict_of_copies_does_not_matter(tmp_path: Path) -> None:
    start = Copying(6, 3)
    tuned = nasprune.finetune(start, IMAGES, **OPTIONS)
    assert not torch.equal(tuned.weight, start.weight)
    (tmp_path / "weights").write_bytes(to_bytes(tuned.state_dict()))
    nasprune.models.weights.load_weights(start, tmp_path / "weights")
    assert_same(start, tuned)


class Killed(Exception):
    pass


def die(epoch: Epoch) -> None:
    if epoch.number == 2:
        raise Killed


@pytest.mark.parametrize("choose", ["last", "best"])
def test_it_goes_on_with_its_buffers_and_with_the_best_epoch(monkeypatch, tmp_path: Path, choose: str) -> None:
    real = training.judged

    def first_epoch_is_best(model: nn.Module, *args: object, **options: object) -> Judged:
        found = real(model, *args, **options)
        steps = float(model[0].mean.mean())
        return Judged(found.loss, 0.9 if 0 < steps < 17 else 0.5, found.count, found.guess)

    monkeypatch.setattr(training, "judged", first_epoch_is_best)
    asked = {**OPTIONS, "choose": choose, "average": 0.0, "batch_size": 32}
    unbroken = nasprune.finetune(net(), IMAGES, **asked)
    for number in (1, 2):

        def dies(epoch: Epoch, number: int = number) -> None:
            if epoch.number == number:
                raise Killed

        with pytest.raises(Killed):
            nasprune.finetune(net(), IMAGES, **asked, out=tmp_path, on_epoch=dies)
    assert_same(nasprune.finetune(net(), IMAGES, **asked, out=tmp_path), unbroken)
    assert (float(unbroken[0].mean.mean()) < 17) == (choose == "best")


def test_what_was_written_without_them_is_refused(monkeypatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(tuner, "own_tensors", lambda model: model.state_dict())
        with pytest.raises(Killed):
            nasprune.finetune(net(), IMAGES, **OPTIONS, out=tmp_path, on_epoch=die)
    with pytest.raises(InputError, match=r"was written without 'student.0.mean', as an older .*; choose another"):
        nasprune.finetune(net(), IMAGES, **OPTIONS, out=tmp_path)
    assert (tmp_path / "finetune.json").exists()


def test_what_was_trained_is_verified_with_the_buffers_of_the_dense_network() -> None:
    dense = net().eval()
    found = nasprune.search(dense, IMAGES[0][:1], "70%")
    tuned = nasprune.finetune(found, IMAGES, **OPTIONS)
    assert float(tuned[0].mean.mean()) > 15
    assert nasprune.verify(dense, tuned, found.graph, found.plan).ok


def test_what_no_file_holds_is_said(tmp_path: Path, caplog) -> None:
    found = nasprune.prune(net(), IMAGES[0][:1], "70%", data=IMAGES, strategy="hard", epochs=1, batch_size=16)
    assert any(note.startswith("the buffers '0.mean' have other values") for note in found.report.notes)
    caplog.clear()
    nasprune.save(found, tmp_path / "first")
    assert "buffers" not in caplog.text
    nasprune.save(found, tmp_path / "second", model=nasprune.finetune(found, IMAGES, **{**OPTIONS, "epochs": 1}))
    assert caplog.text.count("the buffers '0.mean' have other values") == 2


class Shifted(nn.Module):
    """Its buffer is one number, seen six times."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
        self.register_buffer("shift", torch.ones(1).expand(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x - self.shift)


def test_a_buffer_may_be_expanded() -> None:
    torch.manual_seed(0)
    model = Shifted()
    tuned = nasprune.finetune(model, IMAGES, **OPTIONS)
    assert torch.equal(tuned.shift, model.shift)
    found = nasprune.search(model, IMAGES[0][:1], "60%", data=IMAGES)
    pruned = nasprune.prune(model, IMAGES[0][:1], "60%", data=IMAGES, strategy="soft", **OPTIONS)
    assert found.report.proof.ok
    assert pruned.report.proof.ok
    assert model.shift.stride() == (0,)
