"""Loss, rate and accuracies of a training, written for other programs by Lightning Fabric's loggers.

CSV needs nothing more; TensorBoard, MLflow and Weights & Biases need their packages, and are asked for by name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from nasprune.common.arguments import refused
from nasprune.common.factories import one_line
from nasprune.errors import InputError
from nasprune.train.progress import Epoch, OnEpoch, OnStep, TrainingStep

EVERY = 20  # steps, of which one is written
PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
PROJECT = "nasprune"
"""The project, or the experiment, where none is named."""


class Log(Protocol):
    """Takes metrics by name at a step, and is ended."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None: ...

    def finalize(self) -> None: ...


def logs_of(wanted: str | Sequence[str] | None) -> list[Log]:
    """Loggers for "csv:DIR", "tensorboard:DIR", "mlflow" or "mlflow:URI", "wandb" or "wandb:PROJECT".

    Raises:
        InputError: there is no such logger, its folder is not named, its package is not installed, or it does not
        open.
    """
    if wanted is None:
        return []
    names = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(names, Sequence) or not all(isinstance(one, str) for one in names):
        raise refused("log", "a name such as 'csv:DIR', or several", wanted, "write for example log='csv:runs/log'")
    return [_Steady(one, _opened(one)) for one in names]


def logged(
    logs: Sequence[Log], on_step: OnStep | None, on_epoch: OnEpoch | None
) -> tuple[OnStep | None, OnEpoch | None]:
    """The calls, which tell the logs as well."""
    if not logs:
        return on_step, on_epoch
    steps = 0

    def step(told: TrainingStep) -> None:
        nonlocal steps
        steps = (told.epoch - 1) * told.steps + told.step
        if steps % EVERY == 0 or told.step == told.steps:
            metrics = {"loss": told.loss, "accuracy": told.accuracy, "rate": told.rate, "images a second": told.images}
            _tell(logs, metrics, steps)
        if on_step is not None:
            on_step(told)

    def epoch(told: Epoch) -> None:
        found = {"validation loss": told.validation_loss, "validation accuracy": told.validation_accuracy}
        _tell(logs, {"epoch": float(told.number), "training loss": told.loss, **found}, steps)
        if on_epoch is not None:
            on_epoch(told)

    return step, epoch


def ended(logs: Sequence[Log]) -> None:
    """Writes what still waits."""
    for log in logs:
        log.finalize()


def _tell(logs: Sequence[Log], metrics: dict[str, float], step: int) -> None:
    for log in logs:
        log.log_metrics(metrics, step)


def _opened(wanted: str) -> Log:
    name, _, where = wanted.partition(":")
    if name not in KINDS:
        raise refused("log", f"one of {', '.join(KINDS)}", wanted, "write for example csv:DIR")
    if name in ("csv", "tensorboard") and not where:
        raise InputError(f"the log {name!r} needs a folder: write {name}:DIR")
    package = PACKAGES.get(name)
    if package is not None and find_spec(package) is None:
        raise InputError(f"the log {name!r} needs the package {package}: run `pip install {package}`")
    try:
        return KINDS[name](where)
    except OSError as error:
        raise InputError(f"cannot write the log {wanted!r}: {error.strerror or error}; name another folder") from error
    except Exception as error:  # a tracker's client may fail in any way
        raise InputError(
            f"the log {wanted!r} does not open: {type(error).__name__}: {one_line(error)[:300]}; name another place, "
            "or leave it out"
        ) from error


class _Steady:
    """A log that costs no run: where it fails on the way, as when a server is gone, it says so once and is left out."""

    def __init__(self, wanted: str, log: Log) -> None:
        self._wanted, self._log = wanted, log
        self._failed = False

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self._tried(lambda: self._log.log_metrics(metrics, step))

    def finalize(self) -> None:
        self._tried(self._log.finalize)

    def _tried(self, write: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            write()
        except Exception as error:  # a tracker's client may fail in any way
            self._failed = True
            logging.getLogger(__name__).warning(
                f"the log {self._wanted!r} failed and is left out from here on: {type(error).__name__}: "
                f"{one_line(error)[:300]}"
            )


def _csv(where: str) -> Log:
    from lightning_fabric.loggers.csv_logs import CSVLogger

    return _Fabrics(CSVLogger(root_dir=_folder(where), name="", flush_logs_every_n_steps=1))


def _tensorboard(where: str) -> Log:
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    return _Fabrics(TensorBoardLogger(root_dir=_folder(where), name=""))


def _folder(where: str) -> str:
    folder = Path(where).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


@dataclass(frozen=True)
class _Fabrics:
    """A logger of Lightning Fabric."""

    logger: Any

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.logger.log_metrics(metrics, step)

    def finalize(self) -> None:
        self.logger.finalize("success")


class _MLflow:
    """A run of MLflow. where: its tracking URI, or nothing for its own default."""

    def __init__(self, where: str) -> None:
        self._client: Any = import_module("mlflow.tracking").MlflowClient(where or None)
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found is not None else self._client.create_experiment(PROJECT)
        self._run = self._client.create_run(experiment).info.run_id

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._client.log_metric(self._run, name.replace(" ", "_"), value, step=step)

    def finalize(self) -> None:
        self._client.set_terminated(self._run)


class _WandB:
    """A run of Weights & Biases. project: or nothing for the default."""

    def __init__(self, project: str) -> None:
        self._run: Any = import_module("wandb").init(project=project or PROJECT)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self._run.log(metrics, step=step)

    def finalize(self) -> None:
        self._run.finish()


KINDS: dict[str, Callable[[str], Log]] = {"csv": _csv, "tensorboard": _tensorboard, "mlflow": _MLflow, "wandb": _WandB}
