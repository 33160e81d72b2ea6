"""`nasprune finetune`: a network that a search saved, trained on labelled images, in a folder of its own."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.cli import config
from nasprune.cli.interrupts import writing
from nasprune.cli.runs import dense_spec, plan_of, report_of
from nasprune.cli.screen import TrainingScreen, answer, printed, say, stdout, table
from nasprune.common.words import shell_path
from nasprune.cost.units import number_of, percent
from nasprune.errors import InputError
from nasprune.run.reporting import loading_lines

if TYPE_CHECKING:
    from torch import nn

    from nasprune.cut.plan import PrunePlan
    from nasprune.data import DataSplits
    from nasprune.models.loading import LoadedModel
    from nasprune.run.report import SearchReport
    from nasprune.train.recipe import Choice, Optimizer

NO_TEACHER = (
    "No weights of the dense network were given, so there is no teacher; with --weights FILE the small network learns "
    "from it as well, which mostly gives more than labels alone."
)


@dataclass(frozen=True)
class FinetuneOptions:
    """The options of the command, as typed."""

    run: Path
    data: str | None
    model: str | None
    weights: str | None
    epochs: int
    lr: float | None
    optimizer: Optimizer
    batch_size: int
    choose: Choice
    augment: bool
    teacher: bool
    input_size: str | None
    seed: int
    device: str
    precision: str
    plugins: tuple[Path, ...]
    out: Path | None


@dataclass(frozen=True)
class _Tuned:
    """What is saved."""

    model: nn.Module
    plan: PrunePlan
    report: SearchReport


def run(options: FinetuneOptions) -> None:
    """Checks, loads, trains, saves and prints. Cheap mistakes are found before anything is loaded."""
    from nasprune.run.checkpoint import FILES, save
    from nasprune.train.recipe import Recipe

    if options.data is None:
        raise InputError("fine-tuning needs labelled images; give some with --data")
    Recipe(epochs=options.epochs, lr=options.lr, optimizer=options.optimizer, batch_size=options.batch_size)
    report = report_of(options.run)
    out = options.out or options.run / "finetuned"
    with writing(out, (*FILES, config.FILE), partial(_kept, out)):
        dense, small, plan, data = _loaded(options, report)
        _announce(options, dense, data)
        before, tuned = small, _trained(options, dense, small, data, out)
        result, rows = _measured(options, report, dense, before, tuned, plan, data)
        save(result, out)
        config.keep(out, "finetune", options, {"model": dense.spec, "out": out})
    answer({"folder": str(out), "accuracy": dict(rows), "report": asdict(result.report)})
    _show(result.report, [(which, percent(value)) for which, value in rows], out)


def _kept(out: Path) -> str:
    from nasprune.train.resume import FILE

    if not (out / FILE).exists():
        return "no epoch was whole yet, so nothing is kept"
    return f"the last whole epoch is kept in {shell_path(out)}; repeat the command to go on"


def _loaded(options: FinetuneOptions, report: SearchReport) -> tuple[LoadedModel, nn.Module, PrunePlan, DataSplits]:
    """The dense network, the small one with the saved weights, its plan, and the data that fits both."""
    from nasprune.data import load_data
    from nasprune.models.loading import chosen_device, load_model
    from nasprune.run.checkpoint import load

    data: DataSplits | None = None

    def shape_of_data() -> tuple[int, ...]:
        nonlocal data
        data = load_data(str(options.data), seed=options.seed)
        return data.input_shape

    dense = load_model(
        dense_spec(options.run, report, options.model),
        weights=options.weights,
        input_size=options.input_size,
        seed=options.seed,
        shape_of_data=shape_of_data,
    )
    device = chosen_device(options.device)
    small = load(options.run, dense.model, plugins=options.plugins or None).to(device)
    dense.model.to(device)
    return (
        dense,
        small,
        plan_of(options.run),
        data or load_data(str(options.data), seed=options.seed, size=dense.shape[-1]),
    )


def _announce(options: FinetuneOptions, dense: LoadedModel, data: DataSplits) -> None:
    say(f"{dense.spec} as cut in {shell_path(options.run)}; images: {data.split}; pixels {data.normalisation}")
    if options.teacher and dense.weights is None:
        say(NO_TEACHER)


def _trained(options: FinetuneOptions, dense: LoadedModel, small: nn.Module, data: DataSplits, out: Path) -> nn.Module:
    from nasprune.data.augment import flip_and_shift
    from nasprune.train.finetune import finetune

    with TrainingScreen().shown() as screen:
        return finetune(
            small,
            data,
            epochs=options.epochs,
            lr=options.lr,
            optimizer=options.optimizer,
            batch_size=options.batch_size,
            teacher=dense.model if options.teacher and dense.weights is not None else None,
            choose=options.choose,
            augment=flip_and_shift if options.augment else None,
            seed=options.seed,
            device=options.device,
            precision=options.precision,
            out=out,
            on_epoch=screen.epoch,
            on_step=screen.step,
        )


def _measured(
    options: FinetuneOptions,
    report: SearchReport,
    dense: LoadedModel,
    before: nn.Module,
    tuned: nn.Module,
    plan: PrunePlan,
    data: DataSplits,
) -> tuple[_Tuned, list[tuple[str, float]]]:
    """What is saved, and the accuracies of the nets on the test part, which is looked at here for the first time."""
    from nasprune.run.notes import SEEN
    from nasprune.train.measures import accuracy

    nets = {"cut": before, "fine-tuned": tuned} | ({"dense": dense.model} if dense.weights is not None else {})
    reached = {name: accuracy(net, data.test) for name, net in nets.items()}
    seen = "test" not in data.given and reached.get("dense", 0) == 1
    name = "accuracy on seen images" if seen else "test accuracy"
    measured = {**report.measured, **{f"{name} {which}": value for which, value in reached.items()}}
    notes = (
        f"Fine-tuned: {number_of(options.epochs, 'epoch')} on {options.data}.",
        *([SEEN.format("test")] if seen else []),
    )
    told = replace(report, measured=measured, notes=(*report.notes, *notes))
    return _Tuned(tuned, plan, told), list(reached.items())


def _show(report: SearchReport, rows: list[tuple[str, str]], out: Path) -> None:
    console = stdout()
    what = next(name for name in report.measured if name.endswith("fine-tuned")).removesuffix(" fine-tuned")
    console.print(table(("net", what), rows, right=(1,)))
    printed(
        console,
        f"files    {out}/: plan.json, model.safetensors, report.html, report.md, report.json",
        *(f"note     {note}" for note in report.notes[-2:]),
        "",
        "Load it in Python:",
        "  import nasprune",
        *(f"  {line}" for line in loading_lines(report.settings.get("model", ""), str(out))),
    )
