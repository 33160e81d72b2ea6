"""`nasprune search`: from names and a budget to a folder with a smaller proven network."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.cli import config
from nasprune.cli.interrupts import INTERRUPTS, NOTHING, writing
from nasprune.cli.next_steps import files_line, next_steps
from nasprune.cli.runs import TUNED, accuracies, accuracy_name, channels_of, trimmed_network, tuned_in
from nasprune.cli.screen import SearchScreen, answer, printed, say, stdout, table
from nasprune.common.memory import bytes_of
from nasprune.common.words import shell, shell_path
from nasprune.cost.budget import EXAMPLES, Budget, parse_budget
from nasprune.cost.units import number_of, percent
from nasprune.errors import BudgetError, InputError
from nasprune.run.report import SearchReport
from nasprune.run.reporting import ZEROS_HEAD, cost_rows, zeros_rows

if TYPE_CHECKING:
    from torch import nn

    from nasprune.data import DataSplits
    from nasprune.models.loading import LoadedModel
    from nasprune.run.result import SearchResult
    from nasprune.run.sharing import Shared

NO_WEIGHTS = (
    "No weights were given and none were found in the network, so it is taken as untrained: the search compared "
    "architectures, not what the network has learned. Train the result from scratch, or give trained weights with "
    "--weights FILE (or --weights default)."
)
STOPPED = (
    "The search was stopped by Ctrl-C after {:,} trials, and this is the best of them; repeat the command to go on."
)
CHOSEN = ("criterion", "controller", "evaluator", "space", "reconstruct", "sparsifier")
"""Options that may leave the choice to the search."""
REFITTED = "its weights are refitted in closed form on calibration images"
RE_ESTIMATED = "its weights are the dense ones, with batch-norm statistics re-estimated"


@dataclass(frozen=True)
class SearchOptions:
    """The options of the command, as typed."""

    budget: str | None
    model: str
    weights: str | None
    data: str | None
    input_size: str | None
    criterion: str
    controller: str
    evaluator: str
    space: str
    reconstruct: str
    sparsifier: str
    polish: bool | None
    plugins: tuple[Path, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    multiple_of: tuple[str, ...]
    scope: str | None
    trials: int | None
    time_limit: float | None
    seed: int
    out: Path | None
    device: str = "cpu"
    allow_uncounted: bool = False
    allow_chance: bool = False
    memory: str = "2GiB"
    batch: int = 1
    threads: int | None = None
    runtime: str = "eager"
    sweep: str | None = None
    strategy: str | None = None
    finetune: int | None = None
    log: tuple[str, ...] = ()


def run(options: SearchOptions) -> None:
    """Checks, loads, searches, saves and prints. Cheap mistakes are found before anything is loaded."""
    report, out = found(options)
    answer({"folder": str(out), "report": asdict(report)})
    show(report, out)


def found(
    options: SearchOptions,
    loaded: LoadedModel | None = None,
    data: DataSplits | None = None,
    shared: Shared | None = None,
    *,
    announced: bool = False,
) -> tuple[SearchReport, Path]:
    """What is saved, and where.

    Args:
        loaded, data: the model and the data, where they were loaded before. shared: as `nasprune.search` takes it.
        announced: whether model and data have been named before.
    """
    from nasprune.run.checkpoint import FILES, save
    from nasprune.run.recorded import FILE as RECORD

    budget, out = checked(options)
    with writing(out, (*FILES, RECORD, config.FILE), partial(kept, out)):
        if loaded is None:
            loaded, data = load(options)
        if not announced:
            _announce(options, budget, loaded, data)
        result = _noted(options, _searched(options, out, loaded, data, shared), loaded, data)
        save(result, out)
        settings = result.report.settings
        chosen = {name: settings[name] for name in CHOSEN if name in settings}
        config.keep(out, "search", options, {**chosen, "out": out})
    return result.report, out


def kept(out: Path) -> str:
    """What an interrupt leaves in the folder of a search, and how to go on."""
    from nasprune.run.recorded import trials_in

    trials = trials_in(out)
    if not trials:
        return NOTHING
    what = "the best plan so far and all trials" if INTERRUPTS.asked else "all trials that ended"
    return f"{what} ({trials:,}) are kept in {shell_path(out)}; repeat the command to go on"


def checked(options: SearchOptions) -> tuple[Budget, Path]:
    """The budget and the folder of the run. Raises what can be told from names, numbers and folders."""
    if options.budget is None:
        raise BudgetError(f"give a budget with --budget, for example {EXAMPLES}")
    budget = parse_budget(options.budget, latency=True, zeros=True)
    out = options.out or channels_of(options.model) or default_folder(options.model, options.budget)
    _check_names(options, budget)

    from nasprune.refit.reconstruct import check_method
    from nasprune.run.checkpoint import check_folder
    from nasprune.run.checks import check_latency, check_limits
    from nasprune.run.polishing import check_polish

    check_limits(options.trials, options.time_limit)
    bytes_of(options.memory)
    check_latency(options.batch, options.threads, options.runtime)
    check_polish(options.polish, has_data=options.data is not None)
    if options.reconstruct != "auto":
        check_method(options.reconstruct)
    check_folder(out, {"model": options.model, "budget": str(budget), "seed": str(options.seed)})
    return budget, out


def _announce(options: SearchOptions, budget: Budget, loaded: LoadedModel, data: DataSplits | None) -> None:
    shape = loaded.shape if data is None else data.input_shape
    say(
        f"{options.model} at {'×'.join(map(str, shape))}, budget {budget}, "
        f"weights {loaded.weights or 'none (as initialised)'}, data {data.name if data else 'none (data-free)'}"
    )
    if data is not None:
        say(f"images: {data.split}; pixels {data.normalisation}")
    if loaded.weights is None:
        say(NO_WEIGHTS)


def _searched(
    options: SearchOptions, out: Path, loaded: LoadedModel, data: DataSplits | None, shared: Shared | None
) -> SearchResult:
    from nasprune.run.search import search

    with SearchScreen(options.time_limit).shown() as screen:
        return search(
            loaded.model,
            loaded.example_inputs(loaded.shape if data is None else data.input_shape),
            str(options.budget),
            data=data,
            criterion=options.criterion,
            controller=options.controller,
            evaluator=options.evaluator,
            space=options.space,
            reconstruct=options.reconstruct,
            sparsifier=options.sparsifier,
            polish=options.polish,
            seed=options.seed,
            trials=options.trials,
            time_limit=options.time_limit,
            out=out,
            include=options.include,
            exclude=options.exclude,
            multiple_of=options.multiple_of,
            plugins=options.plugins or None,
            scope=options.scope,
            on_progress=screen,
            on_polish=screen.polishing,
            on_phase=screen.phase,
            should_stop=INTERRUPTS.stopping,
            settings={"model": options.model, "weights from": loaded.weights or "none"},
            allow_uncounted=options.allow_uncounted,
            allow_chance=options.allow_chance,
            memory=options.memory,
            batch=options.batch,
            threads=options.threads,
            runtime=options.runtime,
            log=options.log or None,
            shared=shared,
        )


def _noted(options: SearchOptions, result: SearchResult, loaded: LoadedModel, data: DataSplits | None) -> SearchResult:
    """The result with what should be said of its weights and its accuracy."""
    untrained = (NO_WEIGHTS,) if loaded.weights is None else ()
    stopped = (STOPPED.format(len(result.trials)),) if INTERRUPTS.asked else ()
    notes = (*untrained, *stopped, *result.report.notes)
    result = replace(result, report=replace(result.report, notes=notes))
    return result if data is None else _on_data(options, result, loaded.model, data)


def load(options: SearchOptions) -> tuple[LoadedModel, DataSplits | None]:
    """The model and the data, which fit each other. The data says the shape of images where the model does not."""
    from nasprune.data import check_fits, load_data
    from nasprune.data.load import prepared_for
    from nasprune.models.loading import chosen_device, load_model

    data: DataSplits | None = None

    def shape_of_data() -> tuple[int, ...]:
        nonlocal data
        data = load_data(str(options.data), seed=options.seed)
        return data.input_shape

    loaded = trimmed_network(options.model, options.weights, options.input_size) or load_model(
        options.model,
        weights=options.weights,
        input_size=options.input_size,
        seed=options.seed,
        shape_of_data=shape_of_data if options.data is not None else None,
    )
    loaded.model.to(chosen_device(options.device))
    if options.data is None:
        return loaded, None
    data = prepared_for(loaded.model, data, options.data, seed=options.seed, size=loaded.shape[-1])
    if loaded.shape_given and data.input_shape != loaded.shape:
        raise InputError(
            f"--input-size says {'x'.join(map(str, loaded.shape))}, data {data.name!r} gives "
            f"{'x'.join(map(str, data.input_shape))}; leave --input-size out, or choose other data"
        )
    check_fits(loaded.model, data, name=options.model)
    return loaded, data


def _on_data(options: SearchOptions, result: SearchResult, dense: nn.Module, data: DataSplits) -> SearchResult:
    """The result with the accuracy of both nets on the test part, which is no test where the dense net has seen it."""
    from nasprune.common.calls import in_type_of, main_output
    from nasprune.data.batches import batches, has_labels
    from nasprune.run.notes import SEEN
    from nasprune.train.measures import accuracy

    images, labels = next(batches(data.calibration, 1))
    output = main_output(result.model(in_type_of(result.model, images).to(next(result.model.parameters()).device)))
    fits = output is not None and output.ndim > 1 and tuple(labels.shape) == (1, *output.shape[2:])
    if not fits or not has_labels(data.test):  # nothing to compare with
        return result
    reached = accuracy(dense, data.test)
    seen = reached == 1 and "test" not in data.given
    name = "accuracy on seen images" if seen else "test accuracy"
    measured = {
        **result.report.measured,
        f"{name} dense": reached,
        f"{name} cut": accuracy(result.model, data.test),
    }
    how = RE_ESTIMATED if result.report.settings["reconstruct"] == "none" else REFITTED
    how += ", then polished on images without labels" if "divergence after polish" in measured else ""
    cut = bool(result.plan.keep or result.plan.drop or result.plan.masks)
    notes = [SEEN.format("test")] if seen else []
    notes += (
        [f"The cut net is not trained on labels: {how}. Fine-tune it: {_training_line(options, str(options.budget))}"]
        if cut and options.finetune is None
        else []
    )
    report = replace(result.report, measured=measured, notes=(*result.report.notes, *notes))
    return replace(result, report=report)


def _training_line(options: SearchOptions, budget: str) -> str:
    """The command that trains the network on the data of this run, as it is to be typed."""
    from nasprune.cli.runs import LIBRARIES

    out = options.out or channels_of(options.model) or default_folder(options.model, budget)
    given = {
        "--data": options.data,
        "--model": None if options.model.partition(":")[0] in LIBRARIES else options.model,
        "--weights": options.weights,
        "--input-size": options.input_size,
    }
    typed = [f"{name} {shell(value)}" for name, value in given.items() if value is not None]
    return " ".join(["nasprune finetune", shell_path(out), *typed])


def default_folder(model: str, budget: str) -> Path:
    """runs/MODEL-BUDGET, with nothing in it that a shell or a file system would stumble over."""
    name = f"{model.rpartition(':')[2]}-{budget.replace('%', 'pct')}"
    return Path("runs") / re.sub(r"[^\w.+-]+", "_", name)


def _check_names(options: SearchOptions, budget: Budget) -> None:
    from nasprune.registry import with_keywords
    from nasprune.run.names import scorer
    from nasprune.run.spaces import spaces_of, zero_method

    if options.criterion != "auto":
        scorer(options.criterion, options.plugins or None).check_data(options.data is not None)
    spaces = spaces_of(options.space, budget, {})
    zero_method(options.sparsifier, spaces, has_data=options.data is not None, plugins=options.plugins or None)
    names = {
        "controllers": (options.controller, ("problem", "seed")),
        "evaluators": (options.evaluator, ("task",)),
        "search_spaces": (options.space if spaces.zeros is None else spaces.structure or "auto", ("graph",)),
    }
    for kind, (name, taken) in names.items():
        if name != "auto":
            with_keywords(kind, name, options.plugins or None, taken)


def show(report: SearchReport, out: Path, *, training: bool = False) -> None:
    """The result on stdout: costs, proof, files, and what to type next, unless a training follows at once."""
    console = stdout()
    scope = report.settings.get("scope", "all")
    of = "" if scope == "all" else f"of {scope}"
    console.print(table((of, "dense", "cut", "kept"), cost_rows(report), right=(1, 2, 3)))
    if report.sparsity is not None:
        console.print(table(ZEROS_HEAD, zeros_rows(report.sparsity), right=(1, 2, 3)))
    free = sum(group.frozen_because is None for group in report.groups)
    proof = report.proof
    dense_score = f" (dense {report.dense_score:.4f})" if report.dense_score is not None else ""
    counted = "=" if proof.flops == proof.predicted_flops else "≠"
    lines = [
        f"{_how(report)} in {report.seconds:.0f} s, "
        f"score {report.score:.4f}{dense_score}; "
        f"{free} of {len(report.groups)} groups free, {len(report.dropped_blocks)} blocks removed",
        f"proof    {'passed' if proof.ok else 'FAILED'}: masked dense and cut net differ by {proof.max_error:.1e} of "
        f"the largest output ({proof.dtype}, allowed {proof.tolerance:.0e}); {proof.flops:,} FLOPs counted "
        f"{counted} {proof.predicted_flops:,} predicted",
        *([f"left out {', '.join(map(str, report.uncounted))} of the time count no FLOPs"] if report.uncounted else []),
        files_line(out),
        *(["         masks.safetensors: which weights are zero"] if report.sparsity is not None else []),
        *(f"note     {note}" for note in report.notes),
        *([] if training else _afterwards(report, out)),
    ]
    printed(console, *lines)


def _how(report: SearchReport) -> str:
    if "strategy" in report.settings:
        return f"strategy {report.settings['strategy']}, {number_of(int(report.settings['epochs']), 'epoch')}"
    return f"search   {number_of(report.trials, 'trial')}"


def _afterwards(report: SearchReport, out: Path) -> list[str]:
    """What to type next; where the network was trained, for that one, and how good it is."""
    tuned = tuned_in(out)
    if tuned is None:
        return next_steps(report, out)
    what = f"{accuracy_name(tuned)} " if accuracies(tuned) else ""
    nets = [f"{net} {percent(value)}" for net, value in accuracies(tuned).items()]
    return [f"trained  {out / TUNED}/: {what}{', '.join(nets)}".rstrip(": "), *next_steps(tuned, out / TUNED)]
