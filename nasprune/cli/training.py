"""`nasprune search --strategy NAME --finetune EPOCHS`: a search and its training, or a strategy instead."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.cli import config, finetune, search
from nasprune.cli.finetune import FinetuneOptions, kept
from nasprune.cli.interrupts import writing
from nasprune.cli.screen import TrainingScreen, answer, printed, say, stdout
from nasprune.cli.search import SearchOptions
from nasprune.cli.show import show_accuracies
from nasprune.common.processes import how_many, is_first
from nasprune.errors import InputError

if TYPE_CHECKING:
    from nasprune.data import DataSplits
    from nasprune.models.loading import LoadedModel
    from nasprune.strategies.prune import Trained

SEARCHING = ("criterion", "controller", "evaluator", "reconstruct", "sparsifier", "polish", "trials", "time_limit")
"""Options that say how to search."""


def run(options: SearchOptions) -> None:
    """Checks, loads, searches or trains with the strategy, saves and prints; mistakes are found before any of it."""
    _check(options)
    if options.strategy is not None:
        _with_strategy(options)
        return
    _, out = search.checked(options)
    loaded, data = search.load(options)
    _check_labelled(data)
    report, out = search.found(options, loaded, data)
    search.show(report, out, training=True)
    printed(stdout(), "")
    tuned = finetune.trained(_training(options, out))
    finetune.show(tuned)
    answer({"folder": str(out), "report": asdict(report), "finetuned": tuned.record})


def _check(options: SearchOptions) -> None:
    """Raises what can be told from the options alone."""
    from nasprune.strategies.prune import check_strategy_named
    from nasprune.train.recipe import Recipe

    if options.sweep is not None:
        raise InputError("--sweep does not train what it finds; leave it out, or --strategy and --finetune")
    check_strategy_named(options.strategy, options.plugins or None, {})
    if how_many() > 1 and options.strategy is None:
        raise InputError(
            "several processes would search beside each other; search in one, and start `nasprune finetune RUN` with "
            "torchrun"
        )
    if options.finetune is None:
        raise InputError("a strategy cuts while it trains; say how long with --finetune EPOCHS")
    if options.data is None:
        raise InputError("training needs labelled images; give some with --data")
    Recipe(epochs=options.finetune)
    if options.strategy is not None:
        usual = {field.name: field.default for field in fields(SearchOptions)} | dict.fromkeys(search.CHOSEN, "auto")
        for name in SEARCHING:
            if getattr(options, name) not in (usual[name], None, False):
                raise InputError(
                    f"--{name.replace('_', '-')} belongs to a search, in whose place --strategy {options.strategy} "
                    "trains; leave one of the two out"
                )


def _check_labelled(data: DataSplits | None) -> None:
    from nasprune.strategies.prune import check_labelled

    if data is not None:
        check_labelled(data)


def _training(options: SearchOptions, out: object) -> FinetuneOptions:
    """`nasprune finetune` on the folder of the search, with its defaults."""
    folder = Path(str(out))
    return FinetuneOptions(
        run=folder,
        data=options.data,
        model=options.model,
        weights=options.weights,
        epochs=options.finetune or 1,
        lr=None,
        optimizer="sgd",
        batch_size=64,
        choose="last",
        accumulate=1,
        mix="none",
        log=options.log,
        augment=False,
        teacher=True,
        input_size=options.input_size,
        seed=options.seed,
        device=options.device,
        precision="32-true",
        plugins=options.plugins,
        out=None,
    )


def _with_strategy(options: SearchOptions) -> None:
    from nasprune.run.checkpoint import FILES, save

    _, out = search.checked(options)
    here = writing(out, (*FILES, config.FILE), partial(kept, out / "training")) if is_first() else nullcontext()
    with here:
        loaded, data = search.load(options)
        _check_labelled(data)
        if data is None:
            raise InputError("training needs labelled images; give some with --data")
        say(
            f"{options.model} trained with the strategy {options.strategy} within {options.budget}; "
            f"images: {data.split}; pixels {data.normalisation}"
        )
        if loaded.weights is None:
            say("No weights were given, so the network is trained from its initial ones, without a teacher.")
        done = _measured(_trained(options, loaded, data, out), loaded, data)
        if is_first():
            save(done, out)
            config.keep(out, "search", options, {"out": out})
    answer({"folder": str(out), "report": asdict(done.report)})
    search.show(done.report, out)
    show_accuracies(done.report)


def _trained(options: SearchOptions, loaded: LoadedModel, data: DataSplits, out: Path) -> Trained:
    from nasprune.strategies.prune import prune

    with TrainingScreen().shown() as screen:
        return prune(
            loaded.model,
            loaded.example_inputs(data.input_shape),
            str(options.budget),
            data=data,
            epochs=options.finetune or 1,
            strategy=options.strategy,
            distil=loaded.weights is not None,
            include=options.include,
            exclude=options.exclude,
            scope=options.scope,
            space=options.space,
            space_options={"multiple_of": options.multiple_of} if options.multiple_of else None,
            seed=options.seed,
            device=options.device,
            plugins=options.plugins or None,
            out=out,
            log=options.log,
            settings={"model": options.model, "weights from": loaded.weights or "none"},
            on_epoch=screen.epoch,
            on_step=screen.step,
        )


def _measured(done: Trained, loaded: LoadedModel, data: DataSplits) -> Trained:
    """With the accuracies on the test part, which is looked at here for the first time."""
    nets = {"fine-tuned": done.model} | ({"dense": loaded.model} if loaded.weights is not None else {})
    measured, notes = finetune.reached(nets, data)
    report = replace(
        done.report,
        measured={**done.report.measured, **measured},
        notes=(*done.report.notes, *notes),
    )
    return replace(done, report=report)
