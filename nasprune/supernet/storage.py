"""Saving and loading supernets and the networks that come out of them: JSON and safetensors, nothing is pickled.

What is saved of a supernet is which candidates stay, and its values. Loading takes the candidates out of the user's own
untouched net, or of one that its space builds, and fills the values in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.common.factories import one_line
from nasprune.common.fields import Field, Source
from nasprune.common.files import write_all
from nasprune.common.locks import held
from nasprune.common.seals import check_bound, digest_of_bytes
from nasprune.common.states import state_tensors
from nasprune.common.untouched import twin
from nasprune.errors import InputError
from nasprune.models.weights import fit, read_tensors, to_bytes
from nasprune.registry import Plugins
from nasprune.space.choices import OpChoice
from nasprune.supernet.find.alpha_slots import plain_tensors
from nasprune.supernet.find.choices import EdgeWeights, Group, Weights
from nasprune.supernet.find.mixed import MixedOp
from nasprune.supernet.genotype import codecs
from nasprune.supernet.genotype.genotype import Genotype
from nasprune.supernet.genotype.naming import recorded_space, spec_of, supernet_space
from nasprune.supernet.genotype.spaces import Size, SupernetSpace
from nasprune.supernet.report import pages
from nasprune.supernet.report.health import TrimReport
from nasprune.supernet.saved import (
    ARCHITECTURE,
    GENOTYPE,
    PAGE,
    REPORT,
    SUPERNET,
    THEN,
    WEIGHTS,
    ArchitectureFile,
    SupernetFile,
    check_free,
)
from nasprune.supernet.structure.recognise import Names
from nasprune.supernet.structure.refresh import refreshed, scaled_as_saved
from nasprune.supernet.supernet import Supernet
from nasprune.supernet.trim.discrete import Architecture

PLAIN = "plain tensor:"
"""What stands before the names of tensors that a net holds outside of its state_dict."""
PARAMETERS = 2**30
"""Of the largest supernet that is built from a file."""


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
    weights = _weights(net, plain)
    record = SupernetFile(
        space=spec_of(space, plugins) if space is not None else "",
        size=size,
        kept={choice.name: choice.ops for choice in supernet.choices},
        input_shape=tuple(supernet.structure.inputs[0].shape),
        plain=tuple(plain),
        settings=dict(settings or {}),
        weights=digest_of_bytes(weights),
        whole_numbers=not supernet.structure.inputs[0].is_floating_point(),
    )
    _write(Path(folder), {SUPERNET: record.to_json().encode(), WEIGHTS: weights}, report)


def load_supernet(
    folder: str | Path,
    net: nn.Module | Supernet | None = None,
    *,
    choices: Sequence[str] | None = None,
    group: Group | None = None,
    weights: Weights | None = None,
    op_names: Names | None = None,
    edge_weights: EdgeWeights | None = None,
    space: SupernetSpace | str | None = None,
    plugins: Plugins = None,
) -> Supernet:
    """The supernet saved in `folder`: its candidates taken out of a copy of `net`, then the saved values.

    Args:
        folder: what `save_supernet` wrote.
        net: the supernet with all of its candidates, with any values; left as it is. Not needed where a space built it.
            What `Supernet.from_model` made of it will do, and then the arguments after it are not looked at.
        choices, group, weights, op_names, edge_weights: as `Supernet.from_model` was given them.
        space: that the supernet belongs to, or its name, where that is not registered: what a file names is only looked
            up among registered spaces, and never imported.
        plugins: folders where the space is found.

    Raises:
        InputError: a file is missing or damaged, or the net is another; the first difference is named.
    """
    folder = Path(folder)
    saved = SupernetFile.read(folder)
    check_bound(folder / WEIGHTS, _digest(folder / SUPERNET, saved.weights), "weights", THEN)
    whole = net
    if not isinstance(whole, Supernet):
        space = _space(space, saved.space, plugins, folder / SUPERNET)
        whole = whole if whole is not None else _built(space, saved, folder)
        example = torch.randn(saved.input_shape, generator=torch.Generator().manual_seed(0), device="cpu")
        example = torch.zeros_like(example, dtype=torch.int64) if saved.whole_numbers else example
        whole = Supernet.from_model(whole, example, choices, group, weights, op_names, space, edge_weights)
    names = read_tensors(folder / WEIGHTS)
    small = _kept(whole, _replayed(whole.choices, saved.kept, folder), names)
    left = {choice.name: choice.ops for choice in small.choices}
    if left != dict(saved.kept):
        name = next(name for name in {**saved.kept, **left} if left.get(name) != saved.kept.get(name))
        raise _other(
            folder, f"choice {name!r} keeps {saved.kept.get(name)} in the file and {left.get(name)} in the net"
        )
    scaled_as_saved(small.structure, names)
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
    net = model if model is not None else found.model
    weights = _weights(net, _plain(net))
    record = ArchitectureFile(
        space=spec_of(space, plugins) if space is not None else "",
        genotype=genotype,
        ops=dict(found.ops),
        size=found.size or (space.sizes["search"] if space is not None else None),
        counts=found.counts,
        settings=dict(settings or {}),
        weights=digest_of_bytes(weights),
    )
    files = {ARCHITECTURE: record.to_json().encode(), WEIGHTS: weights}
    if genotype is not None:
        files[GENOTYPE] = f"{genotype_text(genotype)}\n".encode()
    _write(Path(folder), files, report)


def load_architecture(
    folder: str | Path,
    net: nn.Module | Supernet | None = None,
    example_inputs: Tensor | None = None,
    *,
    space: SupernetSpace | str | None = None,
    plugins: Plugins = None,
    **recognition: Any,
) -> nn.Module:
    """The network saved by `save_architecture`, in eval mode.

    Args:
        net, example_inputs: the whole supernet, where no space builds the network. What `Supernet.from_model` made of
            it will do as `net`, and then the arguments after it are not looked at.
        space, plugins: as `load_supernet` takes them.
        recognition: `choices`, `group`, `weights` and `op_names`, as `Supernet.from_model` was given them.

    Raises:
        InputError: a file is missing or damaged, or the net is another; the first difference is named.
    """
    folder = Path(folder)
    saved = ArchitectureFile.read(folder)
    check_bound(folder / WEIGHTS, _digest(folder / ARCHITECTURE, saved.weights), "weights", THEN)
    if saved.space and saved.genotype is not None:
        found = _space(space, saved.space, plugins, folder / ARCHITECTURE)
        assert found is not None
        genotype = saved.genotype
        model = _within_limits(lambda: found.network(genotype, saved.size), folder / ARCHITECTURE)
        plain: tuple[str, ...] = ()
    else:
        whole = net if isinstance(net, Supernet) else _recognised(folder, net, example_inputs, recognition)
        small = whole.keep(_replayed(whole.choices, {name: (op,) for name, op in saved.ops.items()}, folder))
        model = small.net
        scaled_as_saved(small.structure, read_tensors(folder / WEIGHTS))
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
    small = _kept(supernet, _everything(supernet), given)
    plain = _plain(small.net)
    _fill_plain(plain, {name: given.pop(name) for name in plain if name in given}, path)
    fit(small.net, given, path)
    return Supernet(refreshed(small.structure))


def _everything(supernet: Supernet) -> dict[str, tuple[str, ...]]:
    return {choice.name: choice.ops for choice in supernet.choices}


def _kept(whole: Supernet, kept: Mapping[str, tuple[str, ...]], names: Collection[str]) -> Supernet:
    """A copy of the supernet with the candidates `kept`, like that whose state_dict has `names`.

    What runs one candidate at a time becomes a mixture when candidates go; until then it is as the user wrote it.
    """
    alone = [one for one in whole.structure.mixed if one.single_path]
    if kept != _everything(whole) or not any(_as_written(one, names) for one in alone):
        return whole.keep(kept)
    return Supernet(replace(whole.structure, net=twin(whole.net)))


def _as_written(one: MixedOp, names: Collection[str]) -> bool:
    inside = [name for name in names if name.startswith(f"{one.path}.")]
    return not inside or any(name.startswith(f"{op}.") for op in one.ops for name in inside)


def _plain(net: nn.Module) -> dict[str, Tensor]:
    return {f"{PLAIN}{name}": tensor for name, tensor in plain_tensors(net).items()}


def _weights(net: nn.Module, plain: Mapping[str, Tensor]) -> bytes:
    return to_bytes({**state_tensors(net), **plain})


def _write(folder: Path, files: Mapping[str, bytes], report: TrimReport | None) -> None:
    if report is not None:
        page = pages.markdown(report).encode(errors="backslashreplace")
        files = {**files, REPORT: report.to_json().encode(), PAGE: page}
    with held(folder):
        check_free(folder, names=files)
        write_all(folder, files)


def _digest(path: Path, recorded: str) -> Field:
    return Field(Source(repr(str(path)), "a saved file", THEN), recorded, "weights")


def _space(given: SupernetSpace | str | None, recorded: str, plugins: Plugins, path: Path) -> SupernetSpace | None:
    """The user's own space, or the registered one that the file names."""
    if isinstance(given, str):
        return supernet_space(given, plugins)
    if given is not None:
        return given
    return recorded_space(recorded, plugins, repr(str(path))) if recorded else None


def _built(space: SupernetSpace | None, saved: SupernetFile, folder: Path) -> nn.Module:
    size = saved.size
    if space is None or size is None:
        raise InputError(f"{str(folder)!r} does not say how its supernet is built; give the untouched net as `net=`")
    return _within_limits(lambda: space.supernet(size), folder / SUPERNET)


def _within_limits(build: Callable[[], nn.Module], path: Path) -> nn.Module:
    """The network that a file describes, built without memory first, so that its size is known before it is there.

    Raises:
        InputError: it is larger than any that is meant, or cannot be built.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            with torch.device("meta"):
                number = sum(value.numel() for value in build().parameters())
            if number <= PARAMETERS:
                return build()
    except InputError as error:
        raise InputError(f"the network that {str(path)!r} describes cannot be built: {error}") from error
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, MemoryError) as error:
        raise InputError(
            f"the network that {str(path)!r} describes cannot be built: {type(error).__name__}: {one_line(error)}; "
            "give the untouched net as `net=`, or save it again"
        ) from error
    raise InputError(
        f"the network that {str(path)!r} describes has {number:,} parameters, at most {PARAMETERS:,} are built from a "
        "file; give the net as `net=` if that is meant"
    )


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


def _other(folder: Path, difference: str) -> InputError:
    return InputError(
        f"the net is not the one that {str(folder)!r} was saved from: {difference}; give that very net, and the same "
        "`choices`, `group` and `op_names`"
    )
