"""`nasprune supernet train`: from the name of a space, or the user's own supernet, to a trained one in a folder."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.cli import config
from nasprune.cli.interrupts import writing
from nasprune.cli.nets import Origin, check_net, check_side, say_found, shape_words, trained, words
from nasprune.cli.screen import answer, printed, say, stdout, table
from nasprune.common.words import shell, shell_path
from nasprune.cost.units import percent, short
from nasprune.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from nasprune.supernet.price.counting import Counts

NO_ARCHITECTURE = (
    "It does not tell where its architecture weights are, so all of it is trained as weights. Let the factory return a "
    "nasprune.Supernet, made with `weights=`."
)


@dataclass(frozen=True)
class TrainOptions:
    """The options of the command, as typed."""

    space: str
    data: str
    input_size: int | None
    channels: int | None
    layers: int | None
    epochs: int
    warmup_epochs: int
    method: str
    seed: int
    device: str
    plugins: tuple[Path, ...]
    out: Path | None


def run(options: TrainOptions) -> None:
    """Trains, saves and prints. Cheap mistakes are found before anything is built."""
    from nasprune.supernet.saved import FILES, check_free

    check_epochs(options.epochs, options.warmup_epochs)
    check_method(options.method)
    check_side(None, options.input_size)
    origin = Origin.find(options.space, options.plugins)
    out = options.out or Path("runs") / f"supernet-{plain_name(options.space)}"
    settings = _settings(options)
    check_free(out, settings)
    with writing(out, (*FILES, config.FILE)):
        accuracy, counts = _trained(options, origin, out, settings)
        config.keep(out, "supernet train", options, {"out": out})
    answer({"folder": str(out), "validation_accuracy": accuracy, "cost": asdict(counts)})
    _show(options, out, accuracy, counts)


def _trained(options: TrainOptions, origin: Origin, out: Path, settings: dict[str, str]) -> tuple[float, Counts]:
    """Trains and saves; the validation accuracy and what the supernet costs."""
    from nasprune.supernet.storage import save_supernet
    from nasprune.supernet.train.training import architecture_of

    data = origin.images(options.data, options.seed, options.input_size)
    assert data is not None
    check_side(data, options.input_size)
    size = origin.size(data, options.channels, options.layers)
    supernet = origin.build(size, data, options.seed)
    check_net(supernet, data, options.space)
    counts = supernet.counts
    say(
        f"{options.space}{f' ({words(size)})' if size is not None else ''}: {len(supernet.choices)} choices, "
        f"{short(counts.fvcore, 'FLOPs')}; {options.epochs} epochs on data {data.name}, images {shape_words(data)}"
    )
    say_found(supernet, origin.space)
    if options.method == "bilevel" and not architecture_of(supernet.structure, supernet.net):
        say(NO_ARCHITECTURE)
    found, accuracy = trained(
        supernet,
        data,
        epochs=options.epochs,
        warmup_epochs=options.warmup_epochs,
        method=options.method,
        seed=options.seed,
        device=options.device,
    )
    save_supernet(found, out, size=size, settings=settings, plugins=options.plugins or None)
    return accuracy, counts


def _show(options: TrainOptions, out: Path, accuracy: float, counts: Counts) -> None:
    console = stdout()
    rows = [
        (f"validation accuracy{' of random paths' if options.method == 'paths' else ''}", percent(accuracy)),
        ("FLOPs (fvcore)", short(counts.fvcore)),
        ("MACs (convolutions and products)", short(counts.macs)),
        ("parameters", short(counts.params)),
    ]
    console.print(table(("trained supernet", ""), rows, right=(1,)))
    space = f" --space {shell(options.space)}" if ":" in options.space.partition("(")[0] else ""
    side = f" --input-size {options.input_size}" if options.input_size is not None else ""
    lines = [
        f"files    {out}/: supernet.json, model.safetensors",
        "",
        "Trim it to a budget:",
        f"  {typed()} trim --supernet {shell_path(out)}{space} --budget 60% --data {shell(options.data)}{side}",
    ]
    printed(console, *lines)


def check_epochs(epochs: int, warmup_epochs: int) -> None:
    """Raises InputError unless there is something to train in."""
    if epochs < 1:
        raise InputError(f"--epochs must be at least 1, got {epochs}")
    if not 0 <= warmup_epochs <= epochs:
        raise InputError(f"--warmup-epochs must be between 0 and --epochs ({epochs}), got {warmup_epochs}")


def check_method(method: str) -> None:
    """Raises UnknownNameError unless supernets can be trained so."""
    from nasprune.supernet.train.training import METHODS

    if method not in METHODS:
        raise UnknownNameError("method of training", method, METHODS)


def plain_name(spec: str) -> str:
    """A name with nothing in it that a shell or a file system would stumble over."""
    return re.sub(r"[^\w.+-]+", "_", spec.rpartition(":")[2]).strip("_")


def typed() -> str:
    """What the user types to get this program."""
    import shutil

    if shutil.which("nasprune"):
        return "nasprune"
    return "python -m nasprune" if Path(sys.argv[0]).name == "__main__.py" else shell_path(sys.argv[0])


def _settings(options: TrainOptions) -> dict[str, str]:
    given = {
        "space": options.space,
        "data": options.data,
        "input size": options.input_size,
        "channels": options.channels,
        "layers": options.layers,
        "epochs": options.epochs,
        "warmup epochs": options.warmup_epochs,
        "method": options.method,
        "seed": options.seed,
    }
    return {name: str(value) for name, value in given.items() if value is not None}
