"""The files that `benchmarks/fuzz.py` damages: each with how it is written, read, and compared with what it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

import nasprune
from nasprune.common.seals import digest_of, sealed
from nasprune.models.nets import ResidualNet
from nasprune.models.weights import load_weights
from nasprune.run.checkpoint import check_folder
from nasprune.run.journal import Journal
from nasprune.run.report import SearchReport
from nasprune.supernet.genotype import codecs
from nasprune.supernet.report.health import TrimReport
from nasprune.supernet.saved import check_free

SETTINGS = {"model": "tiny", "seed": "0"}
SIZE = nasprune.Size(channels=4, layers=1, channels_in=1, resolution=8)
GENOTYPES = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)] * 1, normal_concat=range(2, 3), "
    "reduce=[('max_pool_3x3', 0), ('none', 1)], reduce_concat=[2])",
    "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|",
    '{"cells": {"cell": [["none", 0, 1], ["skip_connect", 0, 2]]}, "concat": {}}',
    '{"normal/op_2_0": "sep_conv_3x3", "normal/input_2_0": [0], "reduce/op_2_0": "none", "reduce/input_2_0": [1]}',
    "normal_n2: {chosen: [normal_n2_p0]}\nnormal_n2_p0: {chosen: [sep_conv_3x3]}\n",
)


@dataclass(frozen=True)
class Target:
    """One kind of file. kind: how it can be damaged: "json", "lines" of JSON, "tensors" or "text".

    write: fills a new folder. read: what a user makes of the folder. same: whether two such are. seal: gives a changed
    record its digest again, as the file has one.
    """

    name: str
    file: str
    kind: str
    write: Callable[[Path], None]
    read: Callable[[Path], Any]
    same: Callable[[Any, Any], bool]
    seal: Callable[[dict[str, Any]], dict[str, Any]] | None = None


def dense() -> nn.Module:
    """Input (N, 1, 8, 8), ten classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResidualNet(input_shape=(1, 8, 8), widths=(4, 8), blocks=2, num_classes=10).eval()


def fingerprint(net: nn.Module) -> str:
    """Of the structure, the values and the outputs of a network for 8×8 images."""
    digest = hashlib.sha256(repr(net).encode())
    with torch.no_grad():
        output = net.eval()(torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    for value in (*net.state_dict().values(), output):
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


@cache
def searched() -> nasprune.SearchResult:
    """A search of a moment."""
    return nasprune.search(dense(), torch.zeros(1, 1, 8, 8), "60%", trials=5, settings=SETTINGS)


def write_search(folder: Path) -> None:
    nasprune.save(searched(), folder)


def write_trials(folder: Path) -> None:
    journal = Journal(folder, SETTINGS)
    journal.round(0, {})
    for trial in searched().trials:
        journal.add(trial)


def read_trials(folder: Path) -> Sequence[nasprune.Trial]:
    return Journal(folder, SETTINGS).round(0, {})


def begins(whole: Sequence[object], part: Sequence[object]) -> bool:
    """Whether a resumed search would go on as the first one did."""
    return tuple(whole[: len(part)]) == tuple(part)


def read_report(folder: Path) -> str:
    check_folder(folder, searched().report.settings)
    SearchReport.from_json((folder / "report.json").read_bytes())
    return "a report"


@cache
def supernet() -> nasprune.Supernet:
    """Of NAS-Bench-201's space, with every value set."""
    space = nasprune.supernet_space("nasbench201")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = space.supernet(SIZE).eval()
        return nasprune.Supernet.from_model(net, torch.randn(2, 1, 8, 8), space=space)


def write_supernet(folder: Path) -> None:
    trimmed = supernet().trim("60%", "random", keep_max=3)
    nasprune.save_supernet(
        trimmed.supernet, folder, size=SIZE, report=trimmed.report, settings={"space": "nasbench201"}
    )


def write_architecture(folder: Path) -> None:
    nasprune.save_architecture(supernet().discretise(size=SIZE), folder, settings={"space": "nasbench201"})


def read_trim_report(folder: Path) -> str:
    TrimReport.from_json((folder / "report.json").read_bytes())
    check_free(folder)
    return "a report"


def write_weights(folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(dense().state_dict(), folder / "w.safetensors")
    torch.save(dense().state_dict(), folder / "w.pt")


def read_weights(name: str) -> Callable[[Path], str]:
    """Reading values that anybody may have changed: whatever is finite and fits is taken."""

    def read(folder: Path) -> str:
        net = dense()
        load_weights(net, folder / name)
        broken = [key for key, value in net.state_dict().items() if not bool(value.isfinite().all())]
        return f"not finite: {broken}" if broken else "finite"

    return read


def genotype(number: int) -> Target:
    """Texts have no digest, so that every genotype they can say is right; it must come back from its own text."""

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "genotype.txt").write_text(GENOTYPES[number].replace(" * 1", ""))

    def read(folder: Path) -> bool:
        found = codecs.parse((folder / "genotype.txt").read_text(errors="surrogateescape"))
        return codecs.from_json(codecs.to_json(found)) == found

    return Target(f"genotype {number}", "genotype.txt", "text", write, read, lambda one, other: one == other)


def equal(one: object, other: object) -> bool:
    return one == other


def reseal(record: dict[str, Any]) -> dict[str, Any]:
    """As `plan.json`, `supernet.json` and `architecture.json` are sealed."""
    return sealed({name: value for name, value in record.items() if name != "digest"})


def recheck(record: dict[str, Any]) -> dict[str, Any]:
    """As lines of `trials.jsonl` are checked."""
    bare = {name: value for name, value in record.items() if name != "check"}
    if isinstance(bare.get("decision"), Mapping) and "digest" in bare:
        items = sorted(bare["decision"].items())
        bare["digest"] = hashlib.sha256(json.dumps(items).encode()).hexdigest()[:16]
    return {**bare, "check": digest_of(bare)[:16]} if "check" in record else record


def loaded(load: Callable[[Path], nn.Module]) -> Callable[[Path], str]:
    return lambda folder: fingerprint(load(folder))


TARGETS = (
    Target(
        *("plan.json", "plan.json", "json", write_search),
        *(loaded(lambda folder: nasprune.load(folder, dense())), equal, reseal),
    ),
    Target(
        *("supernet.json", "supernet.json", "json", write_supernet),
        *(loaded(lambda folder: nasprune.load_supernet(folder).net), equal, reseal),
    ),
    Target(
        *("architecture.json", "architecture.json", "json", write_architecture),
        *(loaded(nasprune.load_architecture), equal, reseal),
    ),
    Target("trials.jsonl", "trials.jsonl", "lines", write_trials, read_trials, begins, recheck),
    Target("report.json of a search", "report.json", "json", write_search, read_report, equal),
    Target("report.json of a trim", "report.json", "json", write_supernet, read_trim_report, equal),
    *map(genotype, range(len(GENOTYPES))),
    Target("weights, safetensors", "w.safetensors", "tensors", write_weights, read_weights("w.safetensors"), equal),
    Target("weights, torch", "w.pt", "text", write_weights, read_weights("w.pt"), equal),
    Target(
        *("weights of a plan", "model.safetensors", "tensors", write_search),
        *(loaded(lambda folder: nasprune.load(folder, dense())), equal),
    ),
)
