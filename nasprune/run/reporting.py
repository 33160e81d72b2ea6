"""A search report as markdown, for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from nasprune.common.memory import written
from nasprune.common.phases import PhaseCost
from nasprune.common.words import python, visible
from nasprune.cost.uncounted import Uncounted
from nasprune.cost.units import number_of, percent, short
from nasprune.cut.proof import Proof
from nasprune.run.layer_times import HEAD, SHOWN, WORDS, time_rows
from nasprune.run.notes import said_once
from nasprune.run.report import FrontPoint, GroupOutcome, LayerTime, SearchReport, Sparsity
from nasprune.run.rungs import heading, nets_of, rung_rows

_BAR = 20
TRIMMED = ("supernet.json", "architecture.json")


def markdown(report: SearchReport, *, folder: str = "FOLDER", load: str = "load") -> str:
    """The report as one markdown page. folder: where it is saved, for the lines that load it by `nasprune.{load}`."""
    parts = [
        f"# {visible(report.settings.get('model', 'model'))} within {report.budget}",
        _summary(report),
        *(["## Notes", _list(said_once(report.notes))] if report.notes else []),
        "## Cost",
        _cost(report),
        *_uncounted(report.uncounted),
        *_layers(report.layers),
        "## Proof",
        _proof(report.proof),
        *_front(report.front),
        *_zeros(report),
        "## Channel groups",
        _groups(report.groups),
        "## Blocks removed",
        _list(f"`{name}`" for name in report.dropped_blocks) or "None.",
        *_frozen(report),
        "## Load it",
        _loading(report, folder, load),
        *_phases(report.phases),
        "## How it was made",
        _table(("setting", "value"), [(name, f"`{value}`") for name, value in sorted(report.settings.items())]),
        _table(("package", "version"), sorted(report.versions.items())) if report.versions else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(report: SearchReport) -> str:
    """The outcome in a few lines of plain text."""
    cut = [group for group in report.groups if group.kept < group.width]
    rows = [("", "dense", "cut", "kept"), *cost_rows(report)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    table = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    done = (
        f"{number_of(len(cut), 'group')} of {len(report.groups)} cut, {number_of(len(report.dropped_blocks), 'block')}"
    )
    verdict = f"proved, error {report.proof.max_error:.1e}" if report.proof.ok else f"not proved: {report.proof.reason}"
    title = f"{visible(report.settings.get('model', 'model'))} within {report.budget}"
    return "\n".join([title, _summary(report), *map(str.rstrip, table), f"{done}; {verdict}"])


def bar(kept: int, width: int) -> str:
    """`kept` of `width` as a bar of twenty cells.

    >>> bar(8, 32)
    '█████░░░░░░░░░░░░░░░'
    """
    filled = round(_BAR * kept / width)
    return "█" * filled + "░" * (_BAR - filled)


def cost_rows(report: SearchReport) -> list[tuple[str, str, str, str]]:
    """Quantity, dense, cut, share kept: FLOPs, parameters, activations, and what was measured for both nets."""
    rows = [
        (label, short(dense, unit), short(cut, unit), percent(cut / dense) if dense else "")
        for label, unit, dense, cut in (
            ("FLOPs (multiply-adds)", "FLOPs", report.dense.flops, report.cut.flops),
            ("parameters", "params", report.dense.params, report.cut.params),
            ("activations", "elements", report.dense.activations, report.cut.activations),
            *_nonzeros(report),
        )
    ]
    for name, dense_value in report.measured.items():
        quantity, _, which = name.rpartition(" ")
        cut_value = report.measured.get(f"{quantity} cut")
        if which == "dense" and cut_value is not None:
            label, unit = (report.latency_label, " ms") if quantity == "latency_ms" else (quantity, "")
            share = percent(cut_value / dense_value) if dense_value else ""
            rows.append((label, f"{dense_value:.4g}{unit}", f"{cut_value:.4g}{unit}", share))
    return rows


def _summary(report: SearchReport) -> str:
    scores = f"best score {report.score:.4f}"
    if report.dense_score is not None:
        scores += f" (dense model {report.dense_score:.4f})"
    left = [
        f"{percent(cut / dense)} of the {what}"
        for what, dense, cut in (
            ("FLOPs", report.dense.flops, report.cut.flops),
            ("parameters", report.dense.params, report.cut.params),
            *(("numbers that are not zero", dense, cut) for *_, dense, cut in _nonzeros(report)),
        )
        if dense
    ]
    return (
        f"{', '.join([*left[:-2], ' and '.join(left[-2:])]) or 'Nothing that costs FLOPs or parameters'} are left. "
        f"{number_of(report.trials, 'trial')} in {report.seconds:.1f} s, {scores}."
    )


def _nonzeros(report: SearchReport) -> list[tuple[str, str, int, int]]:
    return [("not zero (NNZ)", "NNZ", report.sparsity.dense, report.sparsity.cut)] if report.sparsity else []


ZEROS_HEAD = ("layer", "weights", "not zero", "kept")


def zeros_rows(sparsity: Sparsity) -> list[tuple[str, str, str, str]]:
    """Layer, its weights, how many are not held at zero, and the share of these."""
    return [
        (layer.layer, f"{layer.size:,}", f"{layer.kept:,}", percent(layer.kept / layer.size))
        for layer in sparsity.layers
    ]


def _zeros(report: SearchReport) -> list[str]:
    if report.sparsity is None:
        return []
    text = (
        f"{report.proof.zeros:,} weights are exactly zero, in dense tensors; `masks.safetensors` says which. The dense "
        "network with the same zeros gives what the cut one gives."
    )
    rows = [(f"`{layer}`", *cells) for layer, *cells in zeros_rows(report.sparsity)]
    return ["## Zeros inside of weights", text, _table(ZEROS_HEAD, rows)]


def _cost(report: SearchReport) -> str:
    costs = _table(("", "dense", "cut", "kept"), cost_rows(report)) + "\n\nAt batch 1; one FLOP is one multiply-add."
    rows = rung_rows(report)
    head = ("", *(heading(report, net) for net in nets_of(report)))
    return f"{costs}\n\n{_table(head, rows)}" if rows else costs


def _uncounted(left_out: Sequence[Uncounted]) -> list[str]:
    if not left_out:
        return []
    rows = [
        (item.operator, "by convention", percent(item.share))
        if item.by_convention
        else (f"`{item.operator}` at {item.site}", "**no formula**", percent(item.share))
        for item in left_out
    ]
    text = "What the dense model runs and FLOPs leave out, with its share of the time of one run."
    return ["## Not counted", text, _table(("what", "why", "time"), rows)]


def _layers(layers: Sequence[LayerTime]) -> list[str]:
    rows = [(f"`{name}`" if number < SHOWN else name, *rest) for number, (name, *rest) in enumerate(time_rows(layers))]
    return ["## Which layers keep the time", WORDS, _table(HEAD, rows)] if rows else []


def _phases(phases: Sequence[PhaseCost]) -> list[str]:
    if not phases:
        return []
    rows = [(cost.phase, f"{cost.seconds:.1f} s", written(cost.memory)) for cost in phases]
    text = "Each without the phases inside it; memory is the most that the process had held by then."
    return ["## What it took", text, _table(("phase", "time", "memory"), rows)]


def _proof(proof: Proof) -> str:
    verdict = "The cut is proved" if proof.ok else "**The cut is not proved**"
    counted = "equal to" if proof.flops == proof.predicted_flops else "**not equal to**"
    return (
        f"{verdict}: with the removed channels and blocks masked, the dense model and the cut one differ by at most "
        f"{proof.max_error:.1e} of the largest output in {proof.dtype} (allowed {proof.tolerance:.0e}). "
        f"The cut model has {proof.flops:,} FLOPs as counted on it, {counted} the {proof.predicted_flops:,} "
        "predicted."
    )


def _front(front: Sequence[FrontPoint]) -> list[str]:
    if not front:
        return []
    rows = [
        (str(point.trial), short(point.cost.flops, "FLOPs"), short(point.cost.params, "params"), f"{point.score:.6g}")
        for point in front
    ]
    text = "The trials that no other beats in both FLOPs and score; their decisions are in `trials.jsonl`."
    return ["## Cost against score", text, _table(("trial", "FLOPs", "parameters", "score"), rows)]


def _groups(groups: Sequence[GroupOutcome]) -> str:
    free = [group for group in groups if group.frozen_because is None]
    rows = [
        (
            f"`{group.name}`",
            f"{group.width} → {group.kept}",
            f"`{bar(group.kept, group.width)}`",
            percent(group.kept / group.width) if group.kept else "went with its block",
        )
        for group in free
    ]
    return _table(("group", "channels", "", "kept"), rows) if rows else "None is free."


def _frozen(report: SearchReport) -> list[str]:
    reasons = {group.name: group.frozen_because for group in report.groups if group.frozen_because is not None}
    reasons |= report.proof.frozen
    if not reasons:
        return []
    return ["## Left whole", _table(("group or block", "why"), [(f"`{name}`", why) for name, why in reasons.items()])]


def _loading(report: SearchReport, folder: str, load: str) -> str:
    spec = report.settings.get("model", "")
    return "\n".join(
        [
            "```python",
            "import nasprune",
            *loading_lines(spec, folder, load),
            "```",
        ]
    )


def loading_lines(spec: str, folder: str, function: str = "load") -> list[str]:
    """The Python lines that load the small network saved in `folder`, for the model named by `spec`."""
    source, _, name = spec.partition(":")
    if any((Path(spec) / file).is_file() for file in TRIMMED):  # a trim, which may hold the search of its channels
        if Path(folder).parent == Path(spec):
            return [f"small = nasprune.load({python(spec)})"]
        discrete = (Path(spec) / "architecture.json").exists()
        net = f"load_architecture({python(spec)})" if discrete else f"load_supernet({python(spec)}).net"
        return [f"small = nasprune.{function}({python(folder)}, model=nasprune.{net})"]
    load = f"small = nasprune.{function}({python(folder)}, model="
    if source == "torchvision":
        options = ", weights_backbone=None" if _takes_backbone(name) else ""
        return [
            "import torchvision",
            f"dense = torchvision.models.get_model({python(name)}, weights=None{options})",
            f"{load}dense)",
        ]
    if source == "timm":
        return ["import timm", f"{load}timm.create_model({python(name)}))"]
    if name.isidentifier() and all(part.isidentifier() for part in source.split(".")) and not source.endswith(".py"):
        return [f"from {source} import {name}", f"{load}{name}())"]
    if name:
        return ["from nasprune.models import call_factory", f'{load}call_factory({python(spec)}, what="model"))']
    return [f"{load}YOUR_DENSE_MODEL)"]


def _takes_backbone(name: str) -> bool:
    return any(part in name for part in ("rcnn", "retinanet", "ssd", "fcos", "fcn_", "deeplab", "lraspp"))


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {visible(item)}" for item in items)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(visible(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
