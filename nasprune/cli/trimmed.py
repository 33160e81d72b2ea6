"""What `nasprune trim` writes and prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from nasprune.cli.asked import Asked, Outcome
from nasprune.cli.screen import answer, printed, stdout, table
from nasprune.cli.supernet import typed
from nasprune.common.words import python, shell, shell_path
from nasprune.cost.units import percent, short
from nasprune.supernet.folders import CHANNELS, TRIMMED
from nasprune.supernet.price.counting import Counter, Counts, count_module
from nasprune.supernet.price.limits import TYPED
from nasprune.supernet.report import pages
from nasprune.supernet.saved import check_free
from nasprune.supernet.storage import genotype_text, save_architecture, save_supernet

if TYPE_CHECKING:
    from nasprune.supernet.genotype.spaces import Size


def check_places(asked: Asked) -> None:
    """Raises InputError where one of the folders that will be written holds another run, or what is not ours."""
    from nasprune.run.checkpoint import check_folder

    check_free(asked.out, asked.settings)
    if asked.options.discretise:
        check_free(asked.out / TRIMMED, asked.settings)
    if asked.channels:
        check_folder(asked.out / CHANNELS, {})


def save(asked: Asked, outcome: Outcome, size: Size | None) -> None:
    """The supernet, or the network with the supernet in a folder beside it; and the network with fewer channels."""
    from nasprune.run.checkpoint import save as save_cut

    plugins, report = asked.options.plugins or None, outcome.trimmed.report
    folder = asked.out if outcome.architecture is None else asked.out / TRIMMED
    save_supernet(outcome.trimmed.supernet, folder, size=size, report=report, settings=asked.settings, plugins=plugins)
    if outcome.architecture is not None:
        own = outcome.architecture.report
        save_architecture(outcome.architecture, asked.out, report=own, settings=asked.settings, plugins=plugins)
    if outcome.cut is not None:
        save_cut(outcome.cut, asked.out / CHANNELS)


def show(asked: Asked, outcome: Outcome) -> None:
    """The result on stdout: costs, what stays, baselines, warnings, files, and what to type next."""
    console, report = stdout(), outcome.trimmed.report
    columns = list(_columns(outcome))
    answer(_record(asked, outcome, columns))
    labels: dict[str, Counter] = {
        "FLOPs (fvcore)": "fvcore",
        "MACs (convolutions and products)": "macs",
        "parameters": "params",
    }
    rows = [(label, *(short(counts[counter]) for _, counts in columns)) for label, counter in labels.items()]
    right = tuple(range(1, len(columns) + 1))
    console.print(table(("", *(name for name, _ in columns)), rows, right=right))
    printed(console, f"budget   {outcome.limit}: {_kept(columns[-1], outcome)}", "")
    kept = [tuple(cell.replace("`", "") for cell in row) for row in pages.kept_rows(report)]
    console.print(table(("choice", "stays", "goes"), kept))
    console.print()
    console.print(table(pages.ROW_HEAD, [pages.row_cells(row) for row in report.rows], right=range(1, 7)))
    printed(console, "", *pages.lines(report))
    if outcome.architecture is not None:
        printed(console, *_network(outcome))
    printed(console, *_files(asked, outcome), "", *_next(asked, outcome))


def _record(asked: Asked, outcome: Outcome, columns: Sequence[tuple[str, Counts]]) -> dict[str, object]:
    found = outcome.architecture
    genotype = genotype_text(found.genotype) if found is not None and found.genotype is not None else None
    return {
        "folder": str(asked.out),
        "budget": str(outcome.limit),
        "costs": {name: asdict(counts) for name, counts in columns},
        "genotype": genotype,
        "ops": dict(found.ops) if found is not None else None,
        "report": asdict(outcome.trimmed.report),
    }


def _columns(outcome: Outcome) -> Iterator[tuple[str, Counts]]:
    yield "supernet", outcome.whole.counts
    yield "trimmed", outcome.trimmed.report.after
    if outcome.architecture is not None:
        yield "network", outcome.architecture.counts
    if outcome.cut is not None:
        yield "fewer channels", count_module(outcome.cut.model, _shape(outcome))


def _shape(outcome: Outcome) -> tuple[int, ...]:
    found = outcome.architecture
    if found is not None and found.size is not None:
        return found.size.input_shape
    return tuple(outcome.whole.structure.inputs[0].shape)


def _kept(last: tuple[str, Counts], outcome: Outcome) -> str:
    name, counts = last
    if outcome.limit.counter == "latency":
        report = outcome.trimmed.report if outcome.architecture is None else outcome.architecture.report
        return next(check.sentence for check in report.checks if check.name == "latency")
    share = counts[outcome.limit.counter] / outcome.limit.number
    name = {"trimmed": "trimmed supernet", "fewer channels": "net with fewer channels"}.get(name, name)
    return f"the {name} has {counts[outcome.limit.counter]:,}, {percent(share)} of it, counted on what was built"


def _network(outcome: Outcome) -> Iterator[str]:
    found = outcome.architecture
    if found is None:
        return
    if found.genotype is not None:
        yield f"genotype {genotype_text(found.genotype)}"
    if outcome.inherited is not None:
        more = "" if outcome.tuned is not None else "; train it before judging it"
        yield (
            f"network  right on {percent(outcome.inherited)} of the validation images with the supernet's values and "
            f"batch-norm statistics of its own{more}"
        )
    yield from pages.lines(found.report)
    total = len(found.model.state_dict())
    if len(found.left) > total / 2:
        yield "note: the network has another size than the supernet, so its values are initial ones: train it"
    elif found.left:
        yield f"note: {len(found.left)} of its {total} tensors have initial values, the others are the supernet's"


def _files(asked: Asked, outcome: Outcome) -> Iterator[str]:
    reports = "model.safetensors, report.json, report.md"
    if outcome.architecture is None:
        yield f"files    {asked.out}/: supernet.json, {reports}"
    else:
        genotype = "genotype.txt, " if outcome.architecture.genotype is not None else ""
        yield f"files    {asked.out}/: architecture.json, {genotype}{reports}"
        yield f"         {asked.out / TRIMMED}/: the trimmed supernet"
    if outcome.cut is not None:
        yield f"         {asked.out / CHANNELS}/: plan.json and the weights of the network with fewer channels"


def _next(asked: Asked, outcome: Outcome) -> Iterator[str]:
    own = asked.origin.space is None
    discrete = outcome.architecture is not None
    what = "architecture" if discrete else "supernet"
    net = ", YOUR_SUPERNET" if own else ""
    if own and discrete:
        net += f", torch.randn{tuple(outcome.whole.structure.inputs[0].shape)}"
    yield "Load it in Python:"
    if outcome.cut is not None:
        yield "  import nasprune"
        yield f"  net = nasprune.load({python(str(asked.out))}{', YOUR_SUPERNET' if own else ''})"
    else:
        yield "  import nasprune" + (", torch" if own and discrete else "")
        yield f"  net = nasprune.load_{what}({python(str(asked.out))}{net}){'' if discrete else '.net'}"
    if discrete:
        if outcome.tuned is None:
            yield "  net = nasprune.finetune(net, data, epochs=...)"
        return
    yield "Pick one network from what is left:"
    data = f" --data {shell(asked.options.data)}" if asked.options.data is not None else ""
    data += f" --input-size {asked.options.input_size}" if asked.options.input_size is not None else ""
    space = f" --space {shell(asked.origin.spec)}" if own else ""
    yield f"  {typed()} trim --supernet {shell_path(asked.out)}{space} --budget {_half(outcome)} --discretise{data}"


def _half(outcome: Outcome) -> str:
    if outcome.limit.counter == "latency":
        return f"{outcome.limit.number / 2e6:.4g}ms"
    return f"{short(outcome.limit.number / 2).replace(' ', '')}{TYPED[outcome.limit.counter]}"
