"""What the loop takes: gradients of several batches a step, mixed images, logs, and several processes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nasprune.data import ArrayDataset
from nasprune.errors import InputError
from nasprune.train.finetune import finetune
from nasprune.train.logs import KINDS
from nasprune.train.mixing import mixing
from nasprune.train.team import steps_of
from tests.strategies.test_resume import pruned

NOISE = torch.randn(48, 3, 4, 4, generator=torch.Generator().manual_seed(0))
IMAGES = NOISE + torch.eye(3)[torch.arange(48) % 3][:, :, None, None], torch.arange(48) % 3
PARTS = {
    name: ArrayDataset(*(value[part] for value in IMAGES))
    for name, part in (("train", slice(32)), ("val", slice(32, 40)), ("test", slice(40, 48)))
}
OPTIONS = {"epochs": 2, "lr": 0.05, "average": 0.5}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3))


def apart(first: nn.Module, second: nn.Module) -> float:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def test_batches_that_make_one_step_are_one_large_batch() -> None:
    whole = finetune(net(), IMAGES, **OPTIONS, batch_size=16)
    parts = finetune(net(), IMAGES, **OPTIONS, batch_size=4, accumulate=4)
    assert apart(parts, whole) < 1e-6
    assert apart(finetune(net(), IMAGES, **OPTIONS, batch_size=4), whole) > 1e-3
    assert [steps_of(images, 4, accumulate=2) for images in (16, 17, 18, 24, 25)] == [2, 2, 3, 3, 3]
    assert steps_of(17, 2, team_size=2) == 4
    with pytest.raises(InputError, match="`accumulate` must be at least 1, got 0"):
        finetune(net(), IMAGES, accumulate=0)


def test_a_strategy_steps_with_the_optimizer() -> None:
    assert pruned("soft", batch_size=8, accumulate=3).report.proof.ok


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "both"])
def test_images_and_classes_are_mixed_in_the_same_shares(mix: str) -> None:
    torch.manual_seed(0)
    images = torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 1, 8, 8)
    mixed, shares = mixing(mix, 3)(images, torch.arange(3))
    assert torch.allclose(mixed.mean((1, 2, 3)), shares @ torch.arange(3.0), atol=1e-5)
    assert torch.allclose(shares.sum(1), torch.ones(3))
    assert apart(finetune(net(), IMAGES, **OPTIONS, mix=mix), finetune(net(), IMAGES, **OPTIONS)) > 1e-3


def test_what_cannot_be_mixed_is_said() -> None:
    for options, data, message in (
        ({"mix": "blend"}, IMAGES, "`mix` must be one of none, mixup, cutmix, both"),
        ({"mix": "mixup"}, (IMAGES[0], torch.rand(48, 3)), 'mix="mixup" mixes images .n, C, H, W. and their classes'),
    ):
        with pytest.raises(InputError, match=message):
            finetune(net(), data, epochs=1, **options)
    with pytest.raises(InputError, match="needs a class from 0 to 2 for every image, got -1 to 1"):
        mixing("cutmix", 3)(IMAGES[0], IMAGES[1] - 1)


def test_a_training_is_logged(tmp_path: Path) -> None:
    finetune(net(), IMAGES, **OPTIONS, log=f"csv:{tmp_path}")
    (file,) = tmp_path.glob("version_*/metrics.csv")
    rows = list(csv.DictReader(file.open()))
    found = [float(row["validation accuracy"]) for row in rows if row["validation accuracy"]]
    assert len(found) == 2
    assert all(float(row["loss"]) > 0 for row in rows if row["loss"])


def test_a_log_that_cannot_be_written_is_said_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasprune.train.logs.find_spec", lambda name: None)
    for log, message in (
        ("csv", "the log 'csv' needs a folder: write csv:DIR"),
        ("csv:/proc/none", "cannot write the log 'csv:/proc/none'"),
        ("excel:out", "`log` must be one of csv, tensorboard, mlflow, wandb"),
        ("tensorboard:runs", "run `pip install tensorboard`"),
        (["mlflow"], "run `pip install mlflow`"),
        ("wandb:project", "run `pip install wandb`"),
    ):
        with pytest.raises(InputError, match=message):
            finetune(net(), IMAGES, epochs=1, log=log)


class Gone:
    """A tracker whose server goes away."""

    def __init__(self, where: str) -> None:
        if where == "refuses":
            raise RuntimeError("no server\nand a second line")
        self.told = 0

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.told += 1
        raise ConnectionError("the server is gone")

    def finalize(self) -> None:
        raise AssertionError("a log that failed is left alone")


def test_a_tracker_that_fails_costs_no_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    made: list[Gone] = []
    monkeypatch.setitem(KINDS, "gone", lambda where: made.append(Gone(where)) or made[-1])
    finetune(net(), IMAGES, **OPTIONS, log=["gone:", f"csv:{tmp_path}"])
    assert made[0].told == 1
    assert [r.message for r in caplog.records if "left out" in r.message] == [
        "the log 'gone:' failed and is left out from here on: ConnectionError: the server is gone"
    ]
    assert list(tmp_path.glob("version_*/metrics.csv")), "the other one is told"
    with pytest.raises(InputError, match="'gone:refuses' does not open: RuntimeError: no server; name another place"):
        finetune(net(), IMAGES, epochs=1, log="gone:refuses")


SCRIPT = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from nasprune.train.finetune import finetune
from nasprune.common.processes import is_first
from tests.strategies.test_resume import pruned
from tests.train.test_loop import OPTIONS, PARTS, net

out = Path(sys.argv[1])
model = finetune(net(), PARTS, **OPTIONS, batch_size=8, out=out / "state", log=f"csv:{out / 'log'}")
gal = pruned("gal", batch_size=8)
name = "first" if is_first() else "second"
save_file(model.state_dict(), out / f"{name}.safetensors")
save_file(gal.model.state_dict(), out / f"{name}-gal.safetensors")
"""


@pytest.mark.slow
def test_two_processes_are_one_with_a_double_batch(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, str(tmp_path / "script.py"), str(tmp_path)],
        cwd=root,
        env={"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (load_file(tmp_path / f"{name}.safetensors") for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    one = finetune(net(), PARTS, **OPTIONS, batch_size=16).state_dict()
    assert max(float((one[name] - first[name]).abs().max()) for name in one) < 1e-5
    assert max(float((one[name] - start).abs().max()) for name, start in net().state_dict().items()) > 1e-2
    gals = [load_file(tmp_path / f"{name}-gal.safetensors") for name in ("first", "second")]
    assert all(torch.equal(gals[0][name], gals[1][name]) for name in gals[0])
    assert json.loads((tmp_path / "state" / "finetune.json").read_text())["position"]["steps"] == 4
    assert len(list((tmp_path / "log").glob("version_*"))) == 1
