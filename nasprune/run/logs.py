"""A search written trial by trial for other programs, by the loggers that trainings have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from nasprune.run.exploration import Progress
from nasprune.train.logs import ended, logs_of

OnProgress = Callable[[Progress], None]


@contextmanager
def logged(wanted: str | Sequence[str] | None, on_progress: OnProgress | None) -> Iterator[OnProgress | None]:
    """The call, which tells the logs as well: score, best score, FLOPs and parameters of each trial, at its number.

    Raises:
        InputError: as `nasprune.finetune` for its `log`.
    """
    logs = logs_of(wanted)

    def told(progress: Progress) -> None:
        metrics = {"score": progress.score, "best score": progress.best_score, "seconds": progress.elapsed}
        metrics |= {"FLOPs": float(progress.own.flops), "parameters": float(progress.own.params)}
        for log in logs:
            log.log_metrics(metrics, progress.index)
        if on_progress is not None:
            on_progress(progress)

    try:
        yield told if logs else on_progress
    finally:
        ended(logs)
