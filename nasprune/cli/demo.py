"""`nasprune demo`: the whole way on real data in a few minutes, on a machine without a GPU."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from nasprune.cli.interrupts import INTERRUPTS, writing
from nasprune.cli.screen import SearchScreen, answer, printed, say, stdout, table
from nasprune.common.words import python, shell_path
from nasprune.cost.flops import measure
from nasprune.cost.latency import compare_latency
from nasprune.cost.units import short
from nasprune.data import DataSplits, load_data
from nasprune.data.splits import size_of
from nasprune.models.loading import load_model
from nasprune.run.checkpoint import check_folder, save
from nasprune.run.recorded import settings_in
from nasprune.run.search import search
from nasprune.train.finetune import finetune
from nasprune.train.measures import accuracy
from nasprune.train.progress import Epoch

FOLDER = Path("runs/demo")
FILES = ("plan.json", "model.safetensors", "report.json", "report.md", "report.html", "trials.jsonl")
BUDGET = "50%"
EPOCHS, TUNING_EPOCHS = 12, 10
MODEL = "nasprune.models:digits_net"


@dataclass(frozen=True)
class _Row:
    name: str
    model: nn.Module


def run(seed: int, out: Path | None) -> None:
    """Trains, searches, fine-tunes, saves, and prints one table. The test images are looked at for the table only."""
    folder = out or FOLDER
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the net is so small that threads would wait for each other
    try:
        with writing(folder, FILES):
            if out is None and (settings_in(folder) or {}).get("model") == MODEL:  # an earlier demo's
                for name in FILES:
                    (folder / name).unlink(missing_ok=True)
            check_folder(folder, {"model": MODEL, "seed": str(seed)})
            shown = _made(seed, folder)
        shown()
    finally:
        torch.set_num_threads(threads)


def _made(seed: int, out: Path) -> Callable[[], None]:
    """All that is written; what then shows it."""
    data = load_data("digits", seed=seed)
    loaded = load_model(MODEL, seed=seed)
    inputs = loaded.example_inputs()
    say(
        f"1/3 training a residual net on {size_of(data.train)} images of handwritten digits "
        f"({size_of(data.calibration)} calibrate, {size_of(data.validation)} validate, {size_of(data.test)} test)"
    )
    dense = finetune(loaded.model, data, epochs=EPOCHS, lr=0.1, seed=seed, on_epoch=_say_epoch)
    say(f"2/3 searching {BUDGET} of its FLOPs: every channel group and every residual block may shrink or go")
    with SearchScreen(None).shown() as screen:
        result = search(
            dense,
            inputs,
            BUDGET,
            data=data,
            seed=seed,
            out=out,
            on_progress=screen,
            should_stop=INTERRUPTS.stopping,
            settings={"model": MODEL},
        )
    say("3/3 fine-tuning the cut net with the dense one as its teacher")
    tuned = finetune(result, data, epochs=TUNING_EPOCHS, teacher=dense, seed=seed, on_epoch=_say_epoch)
    save(result, out, model=tuned)
    rows = [_Row("dense", dense), _Row("cut", result.model), _Row("fine-tuned", tuned)]
    report = result.report
    return lambda: _show(rows, inputs[0], data, report.dropped_blocks, report.proof.max_error, out)


def _say_epoch(epoch: Epoch) -> None:
    if epoch.number % 4 == 0 or epoch.number == epoch.of:
        say(
            f"    epoch {epoch.number}/{epoch.of}  loss {epoch.loss:.4f}  validation accuracy "
            f"{100 * epoch.validation_accuracy:.1f}%  {epoch.seconds:.0f} s"
        )


def _show(
    rows: list[_Row], inputs: torch.Tensor, data: DataSplits, dropped: tuple[str, ...], error: float, out: Path
) -> None:
    times = compare_latency([row.model for row in rows], inputs, repeats=200)
    cells, nets = [], []
    for row, milliseconds in zip(rows, times, strict=True):
        cost, right = measure(row.model, inputs), accuracy(row.model, data.test)
        nets.append({"net": row.name, "accuracy": right, **asdict(cost), "latency_ms": milliseconds})
        cells.append(
            (
                row.name,
                f"{100 * right:.1f}%",
                short(cost.flops, "FLOPs"),
                short(cost.params, "params"),
                f"{milliseconds:.2f} ms",
            )
        )
    answer({"folder": str(out), "nets": nets})
    typed = "nasprune" if shutil.which("nasprune") else shell_path(sys.argv[0])
    console = stdout()
    console.print(table(("net", "test accuracy", "FLOPs", "parameters", "latency"), cells, right=(1, 2, 3, 4)))
    lines = [
        f"{size_of(data.test)} test images; latency is the median at batch 1 on one thread. The cut net is "
        "refitted in closed form on calibration images, not yet trained.",
        f"Blocks gone: {', '.join(dropped) or 'none'}. Masked dense and cut net differ by {error:.1e} of the largest "
        "output: the cut is proved.",
        f"Written: {out}/ (report.html and report.md are for reading).",
        "",
        "Next, from Python:",
        "  import nasprune",
        "  from nasprune.models import digits_net",
        f"  small = nasprune.load({python(str(out))}, model=digits_net())",
        "and from the shell:",
        f"  {typed} search --budget 2GFLOPs               # ResNet-50, no data and no weights needed",
        f"  {typed} inspect --model torchvision:resnet18  # what could be pruned, and what not and why",
        f"  {typed} search --budget 30% --model {MODEL} --weights YOUR.safetensors --data digits",
    ]
    printed(console, *lines)
