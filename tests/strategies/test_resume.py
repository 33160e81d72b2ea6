"""A training with a strategy that is killed goes on to the same network bit for bit; what cannot be kept is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nasprune
from nasprune.errors import InputError, PluginError
from nasprune.train import training
from nasprune.train.progress import TrainingStep
from tests.toys import tiny_net

DATA = torch.randn(80, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(80) % 4
PLUGIN = """
from nasprune import Strategy


class Odd(Strategy):
    def __init__(self, task):
        self.task, self.odd = task, object()

    def step(self, progress, rate):
        pass

    def finish(self):
        raise NotImplementedError
"""


class Killed(Exception):
    pass


def pruned(
    strategy: str, out: Path | None = None, *, dies_at: int | None = None, **options: object
) -> nasprune.Trained:
    seen = 0

    def step(_: TrainingStep) -> None:
        nonlocal seen
        seen += 1
        if seen == dies_at:
            raise Killed

    return nasprune.prune(
        tiny_net(),
        DATA[0][:1],
        options.pop("budget", "60%"),  # type: ignore[arg-type]
        data=DATA,
        strategy=strategy,
        out=out,
        on_step=step,
        **{"epochs": 3, "batch_size": 16, **options},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("strategy", ["resrep", "csgd"])
def test_it_goes_on_bit_for_bit(tmp_path: Path, strategy: str) -> None:
    whole = pruned(strategy)
    for dies_at in (2, 7):  # in the first epoch, and after another one that was whole
        with pytest.raises(Killed):
            pruned(strategy, tmp_path, dies_at=dies_at)
    resumed = pruned(strategy, tmp_path)
    assert resumed.plan == whole.plan
    assert all(
        torch.equal(*pair)
        for pair in zip(resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True)
    )
    assert len(list((tmp_path / "training").iterdir())) == 2
    for name, options in (("strategy", {"strategy": "soft"}), ("epochs", {"strategy": strategy, "epochs": 4})):
        with pytest.raises(InputError, match=f"is of another training .{name} was"):
            pruned(**{"out": tmp_path, **options})


@pytest.mark.parametrize("strategy", ["resrep", "csgd", "gal", "olmp"])
def test_a_long_epoch_is_gone_on_with_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setattr(training, "SEGMENT", 1)
    budget = {"budget": "60%NNZ"} if strategy == "olmp" else {}
    whole = pruned(strategy, **budget)
    for dies_at in (2, 5):
        with pytest.raises(Killed):
            pruned(strategy, tmp_path, dies_at=dies_at, save_every=1e-9, **budget)
    resumed = pruned(strategy, tmp_path, save_every=1e-9, **budget)
    assert resumed.plan == whole.plan
    assert all(
        torch.equal(*pair)
        for pair in zip(resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True)
    )
    assert len(list((tmp_path / "training").iterdir())) == 2


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "odd.py").write_text(PLUGIN)
    with pytest.raises(PluginError, match=r"strategy `odd` keeps a object in `odd`, which cannot be written.*`out`"):
        pruned("odd", tmp_path / "out", plugins=[tmp_path], epochs=1)
