"""`nasprune trim`: from a supernet and a budget to a smaller one, and to a plain network if wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.cli import config
from nasprune.cli.asked import Asked, Outcome, TrimOptions, checked, schedule_of
from nasprune.cli.interrupts import writing
from nasprune.cli.nets import check_net, check_side, fitted, resized, say_found, shape_words, trained, words
from nasprune.cli.screen import heard, say
from nasprune.cost.units import percent, short
from nasprune.supernet.price.limits import Limit, counter_of, parse_limit

if TYPE_CHECKING:
    from torch import nn

    from nasprune.base import OpScorer
    from nasprune.data import DataSplits
    from nasprune.run.result import SearchResult
    from nasprune.supernet.genotype.spaces import Size
    from nasprune.supernet.supernet import Supernet, TrimResult
    from nasprune.supernet.trim.discrete import Architecture

UNTRAINED = (
    "The supernet is untrained: scores of its operations mean little beyond their size. Train it with --epochs N and "
    "--data, or give a trained one with --supernet DIR (from nasprune supernet train) or --weights FILE."
)


def run(options: TrimOptions) -> None:
    """Trims, saves and prints. Cheap mistakes are found before anything is built, loaded or trained."""
    from nasprune.cli.trimmed import check_places, save, show
    from nasprune.supernet.saved import FILES

    asked = checked(options)
    check_places(asked)
    with writing(asked.out, (*FILES, config.FILE)):
        data = asked.origin.images(options.data, options.seed, options.input_size or asked.saved_side)
        check_side(data, options.input_size)
        whole, size = _whole(asked, data)
        outcome = _outcome(asked, whole, size, data)
        save(asked, outcome, size)
        config.keep(asked.out, "trim", options, {"out": asked.out})
    show(asked, outcome)


def _whole(asked: Asked, data: DataSplits | None) -> tuple[Supernet, Size | None]:
    """The supernet, with the values it is to be judged by, and its size."""
    from nasprune.supernet.storage import load_values

    options, origin, saved = asked.options, asked.origin, asked.saved
    if saved is not None and options.supernet is not None:
        found, size = _loaded(asked, options.supernet), saved.size
    else:
        size = origin.size(data, options.supernet_channels, options.supernet_layers)
        found = origin.build(size, data, options.seed)
    check_net(found, data, origin.spec)
    counts = found.counts
    say(
        f"{origin.spec}{f' ({words(size)})' if size is not None else ''}: {len(found.choices)} choices, "
        f"{short(counts.fvcore, 'FLOPs')} (fvcore), {short(counts.macs, 'MACs')}; "
        f"data {f'{data.name}, images {shape_words(data)}' if data is not None else 'none'}"
    )
    say_found(found, origin.space)
    _check_budget(asked, found, size, data)
    if options.weights is not None:
        found = load_values(found, options.weights)
    if options.epochs is not None and data is not None:
        found, _ = trained(found, data, epochs=options.epochs, seed=options.seed, device=options.device)
    elif not asked.has_weights:
        say(UNTRAINED)
    return found, size


def _check_budget(asked: Asked, whole: Supernet, size: Size | None, data: DataSplits | None) -> None:
    """Raises BudgetError where no trim, or no network, keeps a budget that needs no measuring: before any training."""
    from nasprune.supernet.trim.discrete import check_network_affordable
    from nasprune.supernet.trim.trimming import check_affordable

    options = asked.options
    if counter_of(str(options.budget), options.count) == "latency":  # type: ignore[arg-type]
        return
    room = _roomier(parse_limit(str(options.budget), whole.counts, options.count), asked.channels)  # type: ignore[arg-type]
    if options.discretise:
        check_network_affordable(whole.structure, room, _final(asked, size, data))
    else:
        check_affordable(whole.structure, room)


def _loaded(asked: Asked, folder: Path) -> Supernet:
    """The supernet in a folder; a space or a function of the user's own is what was typed, not what the folder says."""
    from nasprune.supernet.storage import load_supernet

    options, origin = asked.options, asked.origin
    net = origin.made(options.seed) if origin.space is None else None
    space = origin.space if options.space is not None else None
    return load_supernet(folder, net, space=space, plugins=options.plugins)


def _outcome(asked: Asked, whole: Supernet, size: Size | None, data: DataSplits | None) -> Outcome:
    from nasprune.supernet.structure.limited import limited
    from nasprune.supernet.supernet import DEFAULT, Supernet

    options, notes = asked.options, []
    if counter_of(str(options.budget), options.count) == "latency":  # type: ignore[arg-type]
        say("measuring how long the operations take here")
    structure, limit = limited(whole.structure, options.budget, options.count)  # type: ignore[arg-type]
    whole = Supernet(structure)
    assert limit is not None
    room = _roomier(limit, asked.channels)
    if not asked.has_weights and options.epochs is None:
        notes.append(UNTRAINED)
    scorer = DEFAULT if options.scorer == "auto" else options.scorer
    say(f"scoring the operations by {scorer}, then {schedule_of(options)}")
    with heard("nasprune.supernet.checked", "nasprune.supernet.train.training"):
        trimmed = whole.trim(
            None if options.discretise else room.typed,
            options.scorer,
            schedule=schedule_of(options),
            data=data,
            seed=options.seed,
            plugins=options.plugins,
            check=options.check,
            tune=0 if options.discretise else options.tune,
            on_paths=asked.on_paths,
        )
    trimmed = replace(trimmed, report=replace(trimmed.report, notes=(*notes, *trimmed.report.notes)))
    final = _final(asked, size, data) if options.discretise else None
    found = _network(asked, trimmed, room, final, data) if options.discretise else None
    inherited = _inherited(found.model, data) if found is not None and data is not None and final == size else None
    tuned = None
    if found is not None and data is not None and options.tune:
        found, tuned = _trained_on(found, data, options.tune, options.seed)
    net = found.model if found is not None else trimmed.model
    shape = final.input_shape if final is not None else whole.structure.inputs[0].shape
    cut = _cut(asked, net, tuple(shape), limit, data) if asked.channels else None
    return Outcome(whole, trimmed, found, cut, limit, tuple(notes), inherited, tuned)


def _network(
    asked: Asked, trimmed: TrimResult, room: Limit, size: Size | None, data: DataSplits | None
) -> Architecture:
    """One operation per edge of what is left."""
    options = asked.options
    return trimmed.supernet.discretise(
        room.typed,
        options.rule,
        scorer=None if options.rule is not None else _ranked_by(asked, trimmed),
        size=size,
        data=data,
        seed=options.seed,
        plugins=options.plugins,
    )


def _ranked_by(asked: Asked, trimmed: TrimResult) -> str | OpScorer:
    """The scorer, or with a check the scores that it settled on: they may be those of another net."""
    from nasprune.supernet.checked import Settled

    name = trimmed.report.settings["scorer"]
    return Settled(trimmed.report.scores, name) if asked.options.check else name


def _final(asked: Asked, size: Size | None, data: DataSplits | None) -> Size | None:
    """Of the final network: by default that of the supernet."""
    options, space = asked.options, asked.origin.space
    if space is None or (options.network is None and size is None):
        return None
    start = size if options.network is None else fitted(space.sizes[options.network], None)
    assert start is not None
    if options.network is not None and data is not None:
        start = replace(start, classes=data.num_classes or start.classes, channels_in=data.input_shape[0])
    return resized(start, options.channels, options.layers)


def _roomier(limit: Limit, share: float) -> Limit:
    """What operations may cost so that cutting away `share` of it leaves the limit."""
    return Limit(int(limit.number / (1 - share)), limit.counter)


def _inherited(net: nn.Module, data: DataSplits) -> float:
    import copy

    from nasprune.refit.recalibrate import calibration_batches, recalibrate
    from nasprune.supernet.train.training import Logits
    from nasprune.train.measures import accuracy

    judged = copy.deepcopy(net)
    recalibrate(judged, calibration_batches(data.calibration))
    return accuracy(Logits(judged), data.validation)


def _trained_on(found: Architecture, data: DataSplits, epochs: int, seed: int) -> tuple[Architecture, float]:
    """The network after so many epochs, and how much of the validation images it is then right on."""
    from nasprune.cli.nets import epochs_shown
    from nasprune.supernet.supernet import RE_ESTIMATED_NETWORK
    from nasprune.supernet.train.training import Logits
    from nasprune.train.finetune import finetune
    from nasprune.train.measures import accuracy

    with epochs_shown(epochs) as shown:
        net = finetune(found.model, data, epochs=epochs, seed=seed, on_epoch=shown)
    reached = accuracy(Logits(net), data.validation)
    notes = [note for note in found.report.notes if note != RE_ESTIMATED_NETWORK]
    notes.append(f"After {epochs} more epochs the network is right on {percent(reached)} of the validation images.")
    return replace(found, model=net, report=replace(found.report, notes=tuple(notes))), reached


def _cut(
    asked: Asked, net: nn.Module, shape: Sequence[int], limit: Limit, data: DataSplits | None
) -> SearchResult | None:
    """The net with fewer channels, within the limit; `None` where it is within already."""
    import torch

    from nasprune.cli.screen import SearchScreen
    from nasprune.run.search import search
    from nasprune.supernet.price.counting import count_module

    counted = count_module(net, tuple(shape))
    if counted[limit.counter] <= limit.number:
        say("The operations alone already keep the budget, so no channels are cut.")
        return None
    unit = "Params" if limit.counter == "params" else "FLOPs"
    example = torch.randn(1, *shape[1:], generator=torch.Generator().manual_seed(0), device="cpu")
    with SearchScreen(None).shown() as screen:
        return search(
            net,
            example,
            f"{limit.number}{unit}",
            data=data,
            seed=asked.options.seed,
            plugins=asked.options.plugins or None,
            on_progress=screen,
            settings={"model": f"{asked.out} (load_architecture or load_supernet)"},
        )
