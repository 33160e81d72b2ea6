"""`nasprune trim`: from a supernet and a budget to a smaller one, and to a plain network if wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.cli.nets import Origin, check_free, check_net, fitted, load_images, resized, trained, words
from nasprune.cli.screen import say
from nasprune.cli.supernet import check_epochs, plain_name
from nasprune.errors import BudgetError, InputError, UnknownNameError
from nasprune.supernet.limits import EXAMPLES, Limit, parse_limit
from nasprune.units import short

if TYPE_CHECKING:
    from torch import nn

    from nasprune.data import DataSplits
    from nasprune.search import SearchResult
    from nasprune.supernet.discrete import Architecture
    from nasprune.supernet.spaces import Size
    from nasprune.supernet.storage import SupernetFile
    from nasprune.supernet.supernet import Supernet, TrimResult

UNTRAINED = (
    "The supernet is untrained: scores of its operations mean little beyond their size. Train it with --epochs N and "
    "--data, or give a trained one with --supernet DIR (from nasprune supernet train) or --weights FILE."
)
UNITS = {"fvcore": "FLOPs", "macs": "MACs", "params": "Params"}


@dataclass(frozen=True)
class TrimOptions:
    """The options of the command, as typed."""

    space: str | None
    supernet: Path | None
    weights: Path | None
    budget: str | None
    count: str
    scorer: str
    schedule: str | None
    keep_max: int | None
    discretise: bool
    rule: str | None
    network: str | None
    channels: int | None
    layers: int | None
    supernet_channels: int | None
    supernet_layers: int | None
    data: str | None
    epochs: int | None
    prune_channels: str | None
    seed: int
    device: str
    plugins: tuple[Path, ...]
    out: Path | None


@dataclass(frozen=True)
class Asked:
    """The options, checked. channels: the share of the cost before it that cutting channels takes away, in [0, 1)."""

    options: TrimOptions
    origin: Origin
    saved: SupernetFile | None
    out: Path
    settings: dict[str, str]
    channels: float

    @property
    def has_weights(self) -> bool:
        return self.saved is not None or self.options.weights is not None


@dataclass(frozen=True)
class Outcome:
    """What came of it. inherited: validation accuracy of the network with the supernet's values, norms re-estimated."""

    whole: Supernet
    trimmed: TrimResult
    architecture: Architecture | None
    cut: SearchResult | None
    limit: Limit
    notes: tuple[str, ...]
    inherited: float | None


def run(options: TrimOptions) -> None:
    """Trims, saves and prints. Cheap mistakes are found before anything is built, loaded or trained."""
    from nasprune.cli.trimmed import save, show

    asked = _checked(options)
    data = load_images(options.data, options.seed)
    whole, size = _whole(asked, data)
    outcome = _outcome(asked, whole, size, data)
    save(asked, outcome, size)
    show(asked, outcome)


def _checked(options: TrimOptions) -> Asked:
    from nasprune.registry import op_scorer
    from nasprune.supernet.counting import Counts
    from nasprune.supernet.schedules import stages_of
    from nasprune.supernet.storage import SupernetFile

    if options.budget is None:
        raise BudgetError(f"give a budget with --budget, for example {EXAMPLES}")
    parse_limit(options.budget, Counts(10**9, 10**9, 10**9), options.count)  # type: ignore[arg-type]
    if options.schedule is not None and options.keep_max is not None:
        raise InputError("--schedule and --keep-max say the same twice; give one of them")
    stages_of(_schedule(options))
    if options.scorer != "auto":
        needs = op_scorer(options.scorer, options.plugins)
        if needs.needs_data and options.data is None:
            raise InputError(f"the scorer {options.scorer!r} needs data; give some with --data")
    if not options.discretise and (options.rule, options.network, options.channels, options.layers) != (None,) * 4:
        raise InputError("--rule, --network, --channels and --layers are of the final network; add --discretise")
    if options.rule is not None:
        op_scorer(f"alpha(rule={options.rule})", options.plugins)
    if options.supernet is not None and options.weights is not None:
        raise InputError("--supernet and --weights both give values; give one of them")
    if options.epochs is not None:
        check_epochs(options.epochs, 0)
        if options.data is None:
            raise InputError("--epochs trains the supernet first, on data; give some with --data")
    if options.weights is not None and not options.weights.is_file():
        raise InputError(f"there is no file {str(options.weights)!r} with weights; give a safetensors or torch file")
    saved = SupernetFile.read(options.supernet) if options.supernet is not None else None
    spec = options.space or (saved.settings.get("space") or saved.space if saved is not None else None)
    if not spec:
        raise InputError("give a supernet with --space darts, nasbench201 or file.py:factory, or --supernet DIR")
    origin = Origin.find(spec, options.plugins)
    _check_sizes(options, origin, saved)
    out = options.out or Path("runs") / plain_name(f"{plain_name(spec)}-{options.budget.replace('%', 'pct')}")
    settings = _settings(options, spec)
    check_free(out, settings)
    return Asked(options, origin, saved, out, settings, _part(options.prune_channels))


def _check_sizes(options: TrimOptions, origin: Origin, saved: SupernetFile | None) -> None:
    if saved is not None and (options.supernet_channels, options.supernet_layers) != (None, None):
        raise InputError("--supernet DIR has its own size; leave out --supernet-channels and --supernet-layers")
    final = (options.network, options.channels, options.layers)
    if origin.space is None and final != (None,) * 3:
        raise InputError(
            f"{origin.spec!r} is no space, so its final network has the supernet's own size; leave out --network, "
            "--channels and --layers"
        )
    if origin.space is not None and options.network is not None and options.network not in origin.space.sizes:
        raise UnknownNameError("size of network", options.network, origin.space.sizes)
    if final != (None,) * 3 and "%" in (options.budget or ""):
        raise InputError(
            f"a budget of {options.budget} would be a share of the supernet, which has another size than the network; "
            "give a number, for example 600MMACs"
        )


def _schedule(options: TrimOptions) -> str:
    if options.keep_max is not None:
        return f"topk(k={options.keep_max})"
    return options.schedule or "topk(k=3)"


def _part(text: str | None) -> float:
    """ "20%" or "0.2" as a number."""
    if text is None:
        return 0.0
    try:
        share = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise InputError(f"--prune-channels must be a share above 0% and below 100%, such as 20%, got {text!r}")
    return share


def _settings(options: TrimOptions, spec: str) -> dict[str, str]:
    given = {
        "space": spec,
        "supernet": options.supernet,
        "weights": options.weights,
        "budget": options.budget,
        "count": options.count,
        "scorer": options.scorer,
        "schedule": _schedule(options),
        "discretise": options.discretise,
        "rule": options.rule,
        "network": options.network,
        "channels": options.channels,
        "layers": options.layers,
        "supernet channels": options.supernet_channels,
        "supernet layers": options.supernet_layers,
        "data": options.data,
        "epochs": options.epochs,
        "prune channels": options.prune_channels,
        "seed": options.seed,
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def _whole(asked: Asked, data: DataSplits | None) -> tuple[Supernet, Size | None]:
    """The supernet, with the values it is to be judged by, and its size."""
    from nasprune.supernet.storage import load_supernet, load_values

    options, origin, saved = asked.options, asked.origin, asked.saved
    if saved is not None and options.supernet is not None:
        from nasprune.factories import call_factory

        net = call_factory(origin.spec, what="supernet") if origin.space is None else None
        found, size = load_supernet(options.supernet, net, plugins=options.plugins), saved.size
    else:
        size = origin.size(data, options.supernet_channels, options.supernet_layers)
        found = origin.build(size, data, options.seed)
    check_net(found, data, origin.spec)
    counts = found.counts
    say(
        f"{origin.spec}{f' ({words(size)})' if size is not None else ''}: {len(found.choices)} choices, "
        f"{short(counts.fvcore, 'FLOPs')} (fvcore), {short(counts.macs, 'MACs')}; "
        f"data {data.name if data is not None else 'none'}"
    )
    if options.weights is not None:
        found = load_values(found, options.weights)
    if options.epochs is not None and data is not None:
        found, _ = trained(found, data, epochs=options.epochs, seed=options.seed, device=options.device)
    elif not asked.has_weights:
        say(UNTRAINED)
    return found, size


def _outcome(asked: Asked, whole: Supernet, size: Size | None, data: DataSplits | None) -> Outcome:
    options, notes = asked.options, []
    limit = parse_limit(str(options.budget), whole.counts, options.count)  # type: ignore[arg-type]
    room = _roomier(limit, asked.channels)
    if not asked.has_weights and options.epochs is None:
        notes.append(UNTRAINED)
    trimmed = whole.trim(
        None if options.discretise else _typed(room),
        options.scorer,
        schedule=_schedule(options),
        data=data,
        seed=options.seed,
        plugins=options.plugins,
    )
    report = replace(trimmed.report, notes=(*notes, *trimmed.report.notes))
    trimmed = replace(trimmed, report=report)
    found, inherited = None, None
    if options.discretise:
        final = _final(asked, size, data)
        found = trimmed.supernet.discretise(
            _typed(room),
            options.rule,
            scorer=None if options.rule is not None else report.settings["scorer"],
            size=final,
            data=data,
            seed=options.seed,
            plugins=options.plugins,
        )
        if data is not None and final == size:
            inherited = _inherited(found.model, data)
    net = found.model if found is not None else trimmed.model
    shape = final.input_shape if found is not None and final is not None else whole.structure.inputs[0].shape
    cut = _cut(asked, net, tuple(shape), limit, data) if asked.channels else None
    return Outcome(whole, trimmed, found, cut, limit, tuple(notes), inherited)


def _final(asked: Asked, size: Size | None, data: DataSplits | None) -> Size | None:
    """Of the final network: by default that of the supernet."""
    options, space = asked.options, asked.origin.space
    if space is None or (options.network is None and size is None):
        return None
    start = size if options.network is None else fitted(space.sizes[options.network], None)
    assert start is not None
    if options.network is not None and data is not None:
        start = replace(start, classes=data.num_classes or start.classes)
    return resized(start, options.channels, options.layers)


def _roomier(limit: Limit, share: float) -> Limit:
    """What operations may cost so that cutting away `share` of it leaves the limit."""
    return Limit(int(limit.number / (1 - share)), limit.counter)


def _typed(limit: Limit) -> str:
    return f"{limit.number}{UNITS[limit.counter]}"


def _inherited(net: nn.Module, data: DataSplits) -> float:
    import copy

    from nasprune.data.batches import batches
    from nasprune.finetune import accuracy
    from nasprune.recalibrate import recalibrate
    from nasprune.supernet.training import Logits

    judged = copy.deepcopy(net)
    recalibrate(judged, [images for images, _ in batches(data.calibration, 64)])
    return accuracy(Logits(judged), data.validation)


def _cut(
    asked: Asked, net: nn.Module, shape: Sequence[int], limit: Limit, data: DataSplits | None
) -> SearchResult | None:
    """The net with fewer channels, within the limit; `None` where it is within already."""
    import torch

    from nasprune.cli.screen import SearchScreen
    from nasprune.search import search
    from nasprune.supernet.counting import count_module

    counted = count_module(net, tuple(shape))
    if counted[limit.counter] <= limit.number:
        say("The operations alone already keep the budget, so no channels are cut.")
        return None
    unit = "Params" if limit.counter == "params" else "FLOPs"
    example = torch.randn(1, *shape[1:], generator=torch.Generator().manual_seed(0))
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
