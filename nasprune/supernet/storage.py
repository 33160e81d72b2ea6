"""Saving and loading supernets and the networks that come out of them: JSON and safetensors, nothing is pickled.

What is saved of a supernet is which candidates stay, and its values. Loading takes the candidates out of the user's own
untouched net, or of one that its space builds, and fills the values in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.common.files import write_all
from nasprune.errors import InputError
from nasprune.models.weights import fit, read_tensors, to_bytes
from nasprune.registry import Plugins
from nasprune.space.choices import OpChoice
from nasprune.supernet.find.alpha_slots import plain_tensors
from nasprune.supernet.find.choices import EdgeWeights, Group, Weights
from nasprune.supernet.genotype import codecs
from nasprune.supernet.genotype.genotype import Genotype
from nasprune.supernet.genotype.naming import spec_of, supernet_space
from nasprune.supernet.genotype.spaces import Size, SupernetSpace
from nasprune.supernet.report import pages
from nasprune.supernet.report.health import TrimReport
from nasprune.supernet.structure.recognise import Names
from nasprune.supernet.structure.refresh import refreshed
from nasprune.supernet.supernet import Supernet
from nasprune.supernet.trim.discrete import Architecture

SUPERNET, ARCHITECTURE, WEIGHTS = "supernet.json", "architecture.json", "model.safetensors"
GENOTYPE, REPORT, PAGE = "genotype.txt", "report.json", "report.md"
FORMAT = 1
PLAIN = "plain tensor:"
"""What stands before the names of tensors that a net holds outside of its state_dict."""


@dataclass(frozen=True)
class SupernetFile:
    """`supernet.json`. space: its name with options, "" is none. size: of the supernet, where the space builds it.

    kept: choice -> names of the candidates that stay. input_shape: batch first. plain: names of tensors outside the
    state_dict. settings: how it came about, such as counter, budget, epochs. whole_numbers: whether it reads integers.
    """

    space: str
    size: Size | None
    kept: Mapping[str, tuple[str, ...]]
    input_shape: tuple[int, ...]
    plain: tuple[str, ...]
    settings: Mapping[str, str]
    whole_numbers: bool = False

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def read(cls, folder: Path) -> SupernetFile:
        """Raises InputError where the file is missing or is something else."""
        record = _record(folder / SUPERNET)
        try:
            size = Size(**record["size"]) if record["size"] is not None else None
            kept = {str(name): tuple(map(str, ops)) for name, ops in record["kept"].items()}
            shape = tuple(int(n) for n in record["input_shape"])
            plain = tuple(map(str, record["plain"]))
            whole = bool(record.get("whole_numbers", False))
            return cls(str(record["space"]), size, kept, shape, plain, dict(record["settings"]), whole)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(folder / SUPERNET, error) from error


def save_supernet(
    supernet: Supernet,
    folder: str | Path,
    *,
    size: Size | None = None,
    report: TrimReport | None = None,
    settings: Mapping[str, str] | None = None,
    plugins: Plugins = None,
) -> None:
    """Writes `supernet.json`, `model.safetensors` and with a report `report.json` and `report.md`, all or none.

    Args:
        supernet: as it came from `Supernet.from_model`, trained or trimmed.
        folder: made where it does not exist.
        size: that the space built the supernet with; without it `load_supernet` needs the net.
        report: of the trim. settings: what else should be known, as words.
        plugins: folders where the space was found.

    Raises:
        InputError: the folder cannot be written.
    """
    net, space = supernet.net, supernet.structure.space
    plain = _plain(net)
    record = SupernetFile(
        space=spec_of(space, plugins) if space is not None else "",
        size=size,
        kept={choice.name: choice.ops for choice in supernet.choices},
        input_shape=tuple(supernet.structure.inputs[0].shape),
        plain=tuple(plain),
        settings=dict(settings or {}),
        whole_numbers=not supernet.structure.inputs[0].is_floating_point(),
    )
    files = {WEIGHTS: _weights(net, plain), SUPERNET: record.to_json().encode()}
    if report is not None:
        files |= {REPORT: report.to_json().encode(), PAGE: pages.markdown(report).encode()}
    write_all(Path(folder), files)


def load_supernet(
    folder: str | Path,
    net: nn.Module | Supernet | None = None,
    *,
    choices: Sequence[str] | None = None,
    group: Group | None = None,
    weights: Weights | None = None,
    op_names: Names | None = None,
    edge_weights: EdgeWeights | None = None,
    plugins: Plugins = None,
) -> Supernet:
    """The supernet saved in `folder`: its candidates taken out of a copy of `net`, then the saved values.

    Args:
        folder: what `save_supernet` wrote.
        net: the supernet with all of its candidates, with any values; left as it is. Not needed where a space built it.
            What `Supernet.from_model` made of it will do, and then the arguments after it are not looked at.
        choices, group, weights, op_names, edge_weights: as `Supernet.from_model` was given them.
        plugins: folders where the space is found.

    Raises:
        InputError: a file is missing or damaged, or the net is another; the first difference is named.
    """
    folder = Path(folder)
    saved = SupernetFile.read(folder)
    space = supernet_space(saved.space, plugins) if saved.space else None
    if net is None:
        net = _built(space, saved, folder)
    whole = net
    if not isinstance(whole, Supernet):
        example = torch.randn(saved.input_shape, generator=torch.Generator().manual_seed(0))
        example = torch.zeros_like(example, dtype=torch.int64) if saved.whole_numbers else example
        whole = Supernet.from_model(whole, example, choices, group, weights, op_names, space, edge_weights)
    small = whole.keep(_replayed(whole.choices, saved.kept, folder))
    left = {choice.name: choice.ops for choice in small.choices}
    if left != dict(saved.kept):
        name = next(name for name in {**saved.kept, **left} if left.get(name) != saved.kept.get(name))
        raise _other(
            folder, f"choice {name!r} keeps {saved.kept.get(name)} in the file and {left.get(name)} in the net"
        )
    _fill(small.net, folder, saved.plain)
    small.net.eval()
    return Supernet(refreshed(small.structure))


def save_architecture(
    found: Architecture,
    folder: str | Path,
    *,
    settings: Mapping[str, str] | None = None,
    report: TrimReport | None = None,
    model: nn.Module | None = None,
    plugins: Plugins = None,
) -> None:
    """Writes `architecture.json`, `model.safetensors`, where there is a genotype `genotype.txt`, and a report.

    Args:
        settings: rule, scorer, budget, counter, seed and the like, as words.
        model: the network with other values, such as a fine-tuned one; else `found.model`.

    Raises:
        InputError: the folder cannot be written.
    """
    space, genotype = found.space, found.genotype
    size = found.size or (space.sizes["search"] if space is not None else None)
    record = {
        "format": FORMAT,
        "space": spec_of(space, plugins) if space is not None else "",
        "genotype": json.loads(codecs.to_json(genotype)) if genotype is not None else None,
        "ops": dict(found.ops),
        "size": asdict(size) if size is not None else None,
        "counts": asdict(found.counts),
        "settings": dict(settings or {}),
    }
    net = model if model is not None else found.model
    files = {WEIGHTS: _weights(net, _plain(net)), ARCHITECTURE: json.dumps(record, indent=1).encode()}
    if genotype is not None:
        files[GENOTYPE] = f"{genotype_text(genotype)}\n".encode()
    if report is not None:
        files |= {REPORT: report.to_json().encode(), PAGE: pages.markdown(report).encode()}
    write_all(Path(folder), files)


def load_architecture(
    folder: str | Path,
    net: nn.Module | Supernet | None = None,
    example_inputs: Tensor | None = None,
    *,
    plugins: Plugins = None,
    **recognition: Any,
) -> nn.Module:
    """The network saved by `save_architecture`, in eval mode.

    Args:
        net, example_inputs: the whole supernet, where no space builds the network. What `Supernet.from_model` made of
            it will do as `net`, and then the arguments after it are not looked at.
        recognition: `choices`, `group`, `weights` and `op_names`, as `Supernet.from_model` was given them.

    Raises:
        InputError: a file is missing or damaged, or the net is another; the first difference is named.
    """
    folder = Path(folder)
    record = _record(folder / ARCHITECTURE)
    try:
        spec, ops = str(record["space"]), {str(name): str(op) for name, op in record["ops"].items()}
        size = Size(**record["size"]) if record["size"] is not None else None
        genotype = codecs.from_json(json.dumps(record["genotype"])) if record["genotype"] is not None else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(folder / ARCHITECTURE, error) from error
    if spec and genotype is not None:
        model = supernet_space(spec, plugins).network(genotype, size)
        plain: tuple[str, ...] = ()
    else:
        whole = net if isinstance(net, Supernet) else _recognised(folder, net, example_inputs, recognition)
        model = whole.keep(_replayed(whole.choices, {name: (op,) for name, op in ops.items()}, folder)).net
        plain = tuple(_plain(model))
    _fill(model, folder, plain)
    return model.eval()


def _recognised(
    folder: Path, net: nn.Module | None, example_inputs: Tensor | None, recognition: Mapping[str, Any]
) -> Supernet:
    if net is None or example_inputs is None:
        raise InputError(f"{str(folder)!r} names no space to build from; give the supernet and example_inputs")
    return Supernet.from_model(net, example_inputs, **recognition)


def genotype_text(genotype: Genotype) -> str:
    """One line as the space's authors write it, where they could; else JSON."""
    for write in (codecs.to_darts, codecs.to_nb201):
        try:
            return write(genotype)
        except InputError:
            continue
    return codecs.to_json(genotype)


def load_values(supernet: Supernet, path: Path) -> Supernet:
    """The supernet with the values in a file, which holds a state_dict; its own plain tensors may be in it too.

    Raises:
        InputError: the file cannot be read or does not fit.
    """
    given = read_tensors(path)
    small = supernet.keep({})
    plain = _plain(small.net)
    _fill_plain(plain, {name: given.pop(name) for name in plain if name in given}, path)
    fit(small.net, given, path)
    return Supernet(refreshed(small.structure))


def _plain(net: nn.Module) -> dict[str, Tensor]:
    return {f"{PLAIN}{name}": tensor for name, tensor in plain_tensors(net).items()}


def _weights(net: nn.Module, plain: Mapping[str, Tensor]) -> bytes:
    return to_bytes({**net.state_dict(), **plain})


def _built(space: SupernetSpace | None, saved: SupernetFile, folder: Path) -> nn.Module:
    if space is None or saved.size is None:
        raise InputError(f"{str(folder)!r} does not say how its supernet is built; give the untouched net as `net=`")
    with torch.random.fork_rng(devices=[]):
        return space.supernet(saved.size)


def _replayed(
    choices: Sequence[OpChoice], kept: Mapping[str, tuple[str, ...]], folder: Path
) -> dict[str, tuple[str, ...]]:
    """What `Supernet.keep` is to be given; choices that the file does not have lost all of their candidates."""
    known = {choice.name: choice for choice in choices}
    for name, ops in kept.items():
        if name not in known:
            raise _other(folder, f"the file has a choice {name!r}, the net has {list(known)[:6]}")
        lacking = [op for op in ops if op not in known[name].ops]
        if lacking:
            raise _other(folder, f"choice {name!r} keeps {lacking[0]!r}, the net has only {list(known[name].ops)}")
    return {name: kept.get(name, ()) for name in known}


def _fill(net: nn.Module, folder: Path, names: Sequence[str]) -> None:
    path = folder / WEIGHTS
    given = read_tensors(path)
    plain = _plain(net)
    for name in names:
        if name not in given or name not in plain:
            raise _other(folder, f"{name!r} is {'not in the net' if name in given else 'not among the weights'}")
    _fill_plain(plain, {name: given.pop(name) for name in names}, path)
    fit(net, given, path)


def _fill_plain(plain: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path) -> None:
    with torch.no_grad():
        for name, value in given.items():
            if value.shape != plain[name].shape:
                raise InputError(
                    f"weights {str(path)!r}: {name!r} has shape {list(value.shape)} in the file, "
                    f"{list(plain[name].shape)} in the net; give the weights of this very net"
                )
            plain[name].copy_(value)


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}; give a folder that was saved") from error
    except ValueError as error:
        raise _damaged(path, error) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise InputError(f"{str(path)!r} has the format {found!r}, expected {FORMAT}; save it again")
    return record


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{str(path)!r} is damaged: {type(error).__name__}: {error}; save it again")


def _other(folder: Path, difference: str) -> InputError:
    return InputError(
        f"the net is not the one that {str(folder)!r} was saved from: {difference}; give that very net, and the same "
        "`choices`, `group` and `op_names`"
    )
