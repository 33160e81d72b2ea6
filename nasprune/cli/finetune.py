"""`nasprune finetune`: a network that a search saved, trained on labelled images, in a folder of its own."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.cli import config
from nasprune.cli.interrupts import writing
from nasprune.cli.next_steps import files_line, next_steps
from nasprune.cli.runs import TUNED, dense_spec, report_of, trimmed_network
from nasprune.cli.screen import TrainingScreen, answer, printed, say, stdout, table
from nasprune.common.processes import is_first
from nasprune.common.words import shell_path
from nasprune.cost.units import number_of, percent
from nasprune.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from nasprune.cut.plan import PrunePlan
    from nasprune.data import DataSplits
    from nasprune.models.loading import LoadedModel
    from nasprune.run.checkpoint import Loaded
    from nasprune.run.report import SearchReport
    from nasprune.train.mixing import Mix
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
    accumulate: int
    mix: Mix
    log: tuple[str, ...]
    augment: bool
    teacher: bool
    input_size: str | None
    seed: int
    device: str
    precision: str
    plugins: tuple[Path, ...]
    out: Path | None


@dataclass(frozen=True)
class Tuned:
    """What is saved in `folder`. accuracy: of each net on the test part. notes: what it adds to the report."""

    model: nn.Module
    plan: PrunePlan
    report: SearchReport
    accuracy: dict[str, float]
    notes: tuple[str, ...]
    folder: Path

    @property
    def record(self) -> dict[str, object]:
        """For JSON."""
        return {"folder": str(self.folder), "accuracy": self.accuracy, "report": asdict(self.report)}


def run(options: FinetuneOptions) -> None:
    """Checks, loads, trains, saves and prints. Cheap mistakes are found before anything is loaded."""
    tuned = trained(options)
    answer(tuned.record)
    show(tuned)


def trained(options: FinetuneOptions) -> Tuned:
    """What is trained and saved."""
    from nasprune.run.checkpoint import FILES, save
    from nasprune.train.recipe import Recipe

    if options.data is None:
        raise InputError("fine-tuning needs labelled images; give some with --data")
    Recipe(
        epochs=options.epochs,
        lr=options.lr,
        optimizer=options.optimizer,
        batch_size=options.batch_size,
        mix=options.mix,
    )
    report = report_of(options.run)
    out = options.out or options.run / TUNED
    here = writing(out, (*FILES, config.FILE), partial(kept, out)) if is_first() else nullcontext()
    with here:
        dense, cut, data = _loaded(options, report)
        _announce(options, dense, data)
        nets = _before(options, report, dense, cut)
        nets["fine-tuned"] = _trained(options, dense, cut, data, out)
        result = _measured(options, report, nets, cut.plan, data, out)
        if is_first():
            save(result, out)
            config.keep(out, "finetune", options, {"model": dense.spec, "out": out})
    return result


def kept(out: Path) -> str:
    from nasprune.train.resume import Keeper

    whole = Keeper(out, {})
    if (out / whole.within().file).exists():
        return f"the training so far is kept in {shell_path(out)}; repeat the command to go on"
    if not (out / whole.file).exists():
        return "no epoch was whole yet, so nothing is kept"
    return f"the last whole epoch is kept in {shell_path(out)}; repeat the command to go on"


def _loaded(options: FinetuneOptions, report: SearchReport) -> tuple[LoadedModel, Loaded, DataSplits]:
    """The dense network, the small one with the saved weights and its plan, and the data that fits both."""
    from nasprune.data import load_data
    from nasprune.data.load import prepared_for
    from nasprune.models.loading import chosen_device, load_model
    from nasprune.run.checkpoint import loaded

    data: DataSplits | None = None

    def shape_of_data() -> tuple[int, ...]:
        nonlocal data
        data = load_data(str(options.data), seed=options.seed)
        return data.input_shape

    spec = dense_spec(options.run, report, options.model)
    dense = trimmed_network(spec, options.weights, options.input_size) or load_model(
        spec,
        weights=options.weights,
        input_size=options.input_size,
        seed=options.seed,
        shape_of_data=shape_of_data,
    )
    device = chosen_device(options.device)
    cut = loaded(options.run, dense.model, plugins=options.plugins or None)
    cut.model.to(device)
    dense.model.to(device)
    return (
        dense,
        cut,
        prepared_for(dense.model, data, str(options.data), seed=options.seed, size=dense.shape[-1]),
    )


def _announce(options: FinetuneOptions, dense: LoadedModel, data: DataSplits) -> None:
    say(f"{dense.spec} as cut in {shell_path(options.run)}; images: {data.split}; pixels {data.normalisation}")
    if options.teacher and dense.weights is None:
        say(NO_TEACHER)


def _trained(options: FinetuneOptions, dense: LoadedModel, cut: Loaded, data: DataSplits, out: Path) -> nn.Module:
    from nasprune.data.augment import flip_and_shift
    from nasprune.train.finetune import finetune

    with TrainingScreen().shown() as screen:
        return finetune(
            cut,
            data,
            epochs=options.epochs,
            lr=options.lr,
            optimizer=options.optimizer,
            batch_size=options.batch_size,
            teacher=dense.model if options.teacher and dense.weights is not None else None,
            choose=options.choose,
            accumulate=options.accumulate,
            mix=options.mix,
            log=options.log,
            augment=flip_and_shift if options.augment else None,
            seed=options.seed,
            device=options.device,
            precision=options.precision,
            out=out,
            on_epoch=screen.epoch,
            on_step=screen.step,
        )


def _before(options: FinetuneOptions, report: SearchReport, dense: LoadedModel, cut: Loaded) -> dict[str, nn.Module]:
    """The nets that training is compared with, by name."""
    from nasprune.run.checkpoint import replayed
    from nasprune.strategies.prune import UNREFITTED

    if dense.weights is None:
        return {"cut": cut.model}
    nets = {"dense": dense.model}
    if report.settings.get("reconstruct") not in (None, "none"):
        nets[UNREFITTED] = replayed(cut.plan, dense.model, plugins=options.plugins or None)
    return {**nets, "cut": cut.model}


def _measured(
    options: FinetuneOptions,
    report: SearchReport,
    nets: dict[str, nn.Module],
    plan: PrunePlan,
    data: DataSplits,
    out: Path,
) -> Tuned:
    """What is saved, with the accuracies of the nets on the test part, which is looked at here for the first time."""
    measured, seen = reached(nets, data)
    notes = (f"Fine-tuned: {number_of(options.epochs, 'epoch')} on {options.data}.", *seen)
    told = replace(report, measured={**report.measured, **measured}, notes=(*report.notes, *notes))
    accuracy = {name.rpartition(" ")[2]: value for name, value in measured.items()}
    return Tuned(nets["fine-tuned"], plan, told, accuracy, notes, out)


def reached(nets: dict[str, nn.Module], data: DataSplits) -> tuple[dict[str, float], list[str]]:
    """The accuracies on the test part, named for a report, and what should be said of them."""
    from nasprune.run.notes import SEEN
    from nasprune.train.measures import accuracy

    found = {name: accuracy(net, data.test) for name, net in nets.items()}
    seen = "test" not in data.given and found.get("dense", 0) == 1
    what = "accuracy on seen images" if seen else "test accuracy"
    return {f"{what} {name}": value for name, value in found.items()}, [SEEN.format("test")] if seen else []


def show(tuned: Tuned) -> None:
    """Accuracies on stdout, and what to type next."""
    report, console = tuned.report, stdout()
    what = next(name for name in report.measured if name.endswith("fine-tuned")).removesuffix(" fine-tuned")
    rows = [(net, percent(value)) for net, value in tuned.accuracy.items()]
    console.print(table(("net", what), rows, right=(1,)))
    printed(
        console,
        files_line(tuned.folder),
        *(f"note     {note}" for note in tuned.notes),
        *next_steps(report, tuned.folder),
    )
