"""What `nasprune trim` was asked for, checked before anything is built, loaded or trained, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.cli.nets import Origin, check_scorer, check_side
from nasprune.cli.supernet import check_epochs, plain_name
from nasprune.errors import BudgetError, InputError, UnknownNameError
from nasprune.supernet.price.limits import EXAMPLES, Limit, parse_limit

if TYPE_CHECKING:
    from nasprune.run.result import SearchResult
    from nasprune.supernet.saved import SupernetFile
    from nasprune.supernet.supernet import Supernet, TrimResult
    from nasprune.supernet.trim.discrete import Architecture


@dataclass(frozen=True)
class TrimOptions:
    """The options of the command, as typed."""

    space: str | None
    supernet: Path | None
    weights: Path | None
    budget: str | None
    count: str
    scorer: str
    check: int
    tune: int
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
    input_size: int | None
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

    @property
    def saved_side(self) -> int | None:
        """Pixels of a side of the images that the saved supernet takes; `None` without one, or where it takes none."""
        shape = self.saved.input_shape if self.saved is not None else ()
        return shape[-1] if len(shape) == 4 else None

    @property
    def on_paths(self) -> bool:
        """Whether the supernet was saved as trained on single paths, and has those values still."""
        return self.saved is not None and self.saved.settings.get("method") == "paths" and self.options.epochs is None


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    inherited: validation accuracy of the network with the supernet's values, norms re-estimated. tuned: after the
    training that was asked for.
    """

    whole: Supernet
    trimmed: TrimResult
    architecture: Architecture | None
    cut: SearchResult | None
    limit: Limit
    notes: tuple[str, ...]
    inherited: float | None
    tuned: float | None


def checked(options: TrimOptions) -> Asked:
    """Raises BudgetError, InputError or UnknownNameError for what can be told from names, numbers and folders."""
    from nasprune.supernet.price.counting import Counts
    from nasprune.supernet.saved import SupernetFile
    from nasprune.supernet.score.naming import op_scorer
    from nasprune.supernet.trim.schedules import stages_of

    if options.budget is None:
        raise BudgetError(f"give a budget with --budget, for example {EXAMPLES}")
    limit = parse_limit(options.budget, Counts(10**9, 10**9, 10**9), options.count, 10**9)  # type: ignore[arg-type]
    if limit.counter == "latency" and options.prune_channels is not None:
        raise InputError(
            "--prune-channels cuts channels to a budget of FLOPs, MACs or parameters; give one of these, or search the "
            "folder of the trim afterwards with nasprune search --model DIR"
        )
    if options.schedule is not None and options.keep_max is not None:
        raise InputError("--schedule and --keep-max say the same twice; give one of them")
    stages_of(schedule_of(options))
    check_side(None, options.input_size)
    check_scorer(options.scorer, options.data, options.plugins)
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
    if (options.check or options.tune) and options.data is None:
        raise InputError("--check and --tune train on images; give some with --data")
    if options.check < 0 or options.tune < 0:
        raise InputError(f"--check and --tune must be at least 0, got {options.check} and {options.tune}")
    if options.weights is not None and not options.weights.is_file():
        raise InputError(f"there is no file {str(options.weights)!r} with weights; give a safetensors or torch file")
    saved = SupernetFile.read(options.supernet) if options.supernet is not None else None
    spec = options.space or (saved.source if saved is not None else None)
    if not spec:
        raise InputError("give a supernet with --space darts, nasbench201 or file.py:factory, or --supernet DIR")
    typed = options.space is not None
    origin = Origin.find(spec, options.plugins) if typed else _recorded(spec, options)
    _check_sizes(options, origin, saved)
    out = options.out or Path("runs") / plain_name(f"{plain_name(spec)}-{options.budget.replace('%', 'pct')}")
    return Asked(options, origin, saved, out, _settings(options, spec), _part(options.prune_channels))


def _recorded(spec: str, options: TrimOptions) -> Origin:
    """Where the supernet in the folder of `--supernet` comes from; what its files name is only looked up."""
    from nasprune.supernet.genotype.naming import recorded_space

    return Origin(spec, recorded_space(spec, options.plugins, repr(f"{options.supernet}/supernet.json")), None)


def _check_sizes(options: TrimOptions, origin: Origin, saved: SupernetFile | None) -> None:
    if saved is not None and not saved.space and origin.space is not None:
        raise InputError(
            f"the supernet in {str(options.supernet)!r} is of no space but from a function; give that with --space "
            f"file.py:factory, not {origin.spec!r}"
        )
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


def schedule_of(options: TrimOptions) -> str:
    """As `Supernet.trim` takes it."""
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
        "check": options.check or None,
        "tune": options.tune or None,
        "schedule": schedule_of(options),
        "discretise": options.discretise,
        "rule": options.rule,
        "network": options.network,
        "channels": options.channels,
        "layers": options.layers,
        "supernet channels": options.supernet_channels,
        "supernet layers": options.supernet_layers,
        "data": options.data,
        "input size": options.input_size,
        "epochs": options.epochs,
        "prune channels": options.prune_channels,
        "seed": options.seed,
    }
    return {name: str(value) for name, value in given.items() if value is not None}
