"""Networks whose outputs are numbers, and losses of the user's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import nasprune
from nasprune.errors import InputError
from nasprune.train.measures import accuracy, judged
from nasprune.train.targets import Classes, Numbers, task_of

X = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
Y = 5 * X[:, 0] - 3 * X[:, 1].clamp(min=0) + 40


def net(outputs: int = 1) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, outputs)).eval()


def test_numbers_are_learned_by_their_squared_error() -> None:
    tuned = nasprune.finetune(net(), (X, Y), epochs=40, lr=0.05, optimizer="adamw", batch_size=20, clip=0.0)
    pair = TensorDataset(X, Y)
    assert accuracy(tuned, pair) > 0.6 > accuracy(net(), pair) == 0
    with torch.no_grad():
        error = (tuned(X)[:, 0] - Y).square()
    assert judged(tuned, pair).loss == pytest.approx(float(error.mean()), rel=1e-4)
    assert accuracy(tuned, pair) == pytest.approx(
        float((1 - error / Y.var(correction=0)).clamp(min=0).mean()), rel=1e-4
    )


def test_shares_are_classes() -> None:
    classes = (Y > 40).long()
    options = {"epochs": 5, "batch_size": 20, "lr": 0.1, "device": "cpu"}
    soft, double = (
        nasprune.finetune(net(2), (X, torch.eye(2, dtype=kind)[classes]), **options)
        for kind in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(soft[0].weight, double[0].weight)
    hard, shares = (judged(soft, TensorDataset(X, labels)) for labels in (classes, torch.eye(2)[classes]))
    assert hard.accuracy == shares.accuracy > 0.8
    assert hard.loss == pytest.approx(shares.loss)
    assert isinstance(task_of(TensorDataset(X, torch.rand(200, 2))), Numbers)


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x):
        return self.net(x).squeeze(-1)


def test_outputs_without_an_axis_are_numbers() -> None:
    options = {"epochs": 1, "lr": 0.05, "optimizer": "adamw", "batch_size": 20, "device": "cpu"}
    for teachers in ((None, None), (Flat(), net())):
        flat, same = (
            nasprune.finetune(one, (X, Y), teacher=teacher, **options)
            for one, teacher in zip((Flat(), net()), teachers, strict=True)
        )
        assert torch.equal(flat.net[0].weight, same[0].weight)
    pair = TensorDataset(X, Y)
    assert judged(flat, pair) == judged(same, pair)
    with pytest.raises(InputError, match=r"got outputs of shape \(20,\), which are trained with numbers"):
        nasprune.finetune(Flat(), (X, (Y > 40).long()), epochs=1)
    with pytest.raises(InputError, match='mix="mixup" mixes images'):
        nasprune.finetune(Flat(), (X, Y), epochs=1, mix="mixup")


def test_a_teacher_says_numbers_and_strategies_cut() -> None:
    small = TensorDataset(X, Y - 40)
    dense = nasprune.finetune(net(), small, epochs=20, lr=0.05, optimizer="adamw", batch_size=20)
    found = nasprune.prune(dense, X[:1], "60%", data=small, epochs=20, strategy="soft", batch_size=20, lr=0.01)
    assert found.report.measured["validation accuracy fine-tuned"] > 0.5
    assert found.report.cut.flops <= 0.6 * found.report.dense.flops


def test_what_is_no_target_is_said() -> None:
    with pytest.raises(InputError, match="as many numbers, got labels of shape"):
        nasprune.finetune(net(3), (X, Y), epochs=1)
    with pytest.raises(InputError, match="all labels are the same number"):
        nasprune.finetune(net(), (X, torch.full((200,), 0.5)), epochs=1)
    assert task_of(TensorDataset(X, Y.long())) == Classes()
    assert task_of(TensorDataset(X, Y)) == Numbers(pytest.approx(float(Y.var(correction=0)), rel=1e-4))


class Signs:
    """A loss of the user's own: of the first output, the sign alone."""

    def loss(self, outputs, targets):
        return nn.functional.softplus(-outputs[:, 0] * (targets - 40).sign()).mean()

    def score(self, outputs, targets):
        return ((outputs[:, 0] > 0) == (targets > 40)).float()

    def guess(self, outputs) -> float:
        return 0.693


def test_a_task_of_the_users_own(tmp_path) -> None:
    told = []
    line = {"epochs": 10, "lr": 0.3, "batch_size": 20, "task": Signs(), "out": tmp_path}
    tuned = nasprune.finetune(net(), (X, Y), on_epoch=told.append, **line)
    with torch.no_grad():
        right = float(((tuned(X)[:, 0] > 0) == (Y > 40)).float().mean())
    assert right > 0.9
    assert accuracy(tuned, TensorDataset(X, Y), task=Signs()) == pytest.approx(right)
    assert told[-1].validation_accuracy > 0.8
    with pytest.raises(InputError, match="is of another training"):
        nasprune.finetune(net(), (X, Y), **{**line, "task": None})
