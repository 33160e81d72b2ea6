"""Closed-form refitting of a cut network on calibration inputs, without a gradient step.

Layers are refitted in execution order: the weights of each convolution or linear layer become the least-squares map
from what the layer now reads to what the dense layer gave, with a pull towards its old weights. `lstsq` reads the
inputs of the already refitted cut network (as He et al. 2017, arXiv:1707.06168, and Luo et al. 2017, arXiv:1707.06342,
do for one layer), so that each layer also makes good what went wrong before it; `obs` reads the dense network's inputs,
which is the joint weight update of the Optimal Brain Surgeon (Hassibi and Stork 1993). Departures: all layers are
refitted, with their means (in the bias, or in the running mean of the batch norm behind); and the last layer of a
residual branch also aims at what the shortcut beside it has lost. Layers that are no modules of
torch's own, or run twice, keep their weights; batch norms behind them take new statistics while the refit passes.

The dense and the cut network run side by side in two threads and hand over one layer at a time, so that memory holds
one layer's samples; a layer's rows enter its Gram matrix in chunks.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Queue
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from nasprune.calibration.layers import output_rows, patches, row_count, weight_matrix
from nasprune.common.calls import first_tensor, in_type_of, removed_after
from nasprune.common.untouched import in_eval, undisturbed
from nasprune.cut.plan import PrunePlan
from nasprune.errors import InputError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph
from nasprune.refit.leastsquares import mean_only, ridge
from nasprune.refit.sites import Site, is_depthwise, left_out, norms_behind, sites

METHODS = ("none", "lstsq", "obs")
ROWS = 40_000
CHUNK = 8_192
DAMP = 1e-4
FEATURES = 6_144  # largest side of the matrix that is solved
NAMED = 5  # layers that a note lists


@dataclass(frozen=True)
class _Target:
    """What the dense layer gave: rows (n,) that were sampled, output (n, groups, outputs), shortcut (n, channels).

    features: what it read, less the cut channels; `None` where these matter and the method does not need the others.
    """

    path: str
    rows: Tensor
    output: Tensor
    shortcut: Tensor | None
    features: Tensor | None = None


@dataclass
class _Failure:
    error: BaseException | None = None


def check_method(method: str) -> None:
    """Raises InputError unless `method` is one of METHODS."""
    if method not in METHODS:
        raise InputError(f"expected `reconstruct` to be one of {', '.join(METHODS)}, got {method!r}")


def reconstruct(
    dense: nn.Module,
    small: nn.Module,
    graph: ModelGraph,
    plan: PrunePlan,
    inputs: Tensor,
    method: str = "lstsq",
    *,
    rows: int = ROWS,
    damp: float = DAMP,
) -> list[str]:
    """Refits the layers of `small` in place.

    Args:
        dense: the network that was cut; left as found.
        small: what `nasprune.build(dense, graph, plan)` gave, on the same device.
        inputs: calibration inputs (n, ...), one batch; cast to the type of the network's weights.
        method: "lstsq", "obs" or "none".
        rows: how many output positions of a layer enter its fit at most.
        damp: pull towards the old weights, relative to the mean square of the features.

    Returns:
        Sentences about layers that had too few samples for a free fit, and about those that were not refitted: batch
        norms behind these get the statistics of `inputs`, each after all layers before it are refitted.

    Raises:
        InputError: another method, or a model that does not run its layers in the same order when cut.
    """
    check_method(method)
    if method == "none" or not (plan.keep or plan.drop):  # what is whole needs no refit
        return []
    inputs = in_type_of(dense, inputs)
    parts = submodule(dense, graph.scope), submodule(small, graph.scope)
    found = sites(parts[0], graph, plan)
    left = left_out(found, graph, plan)
    norms = norms_behind(left, found, parts[1], graph) if len(inputs) > 1 else []
    fit = _Fit(parts[1], method, rows, damp, _about(left, norms))
    handover: Queue[_Target | _Failure] = Queue(maxsize=1)
    done = threading.Event()

    def produce() -> None:
        try:
            with torch.no_grad(), removed_after(_targets(parts[0], found, fit, handover, done)):
                dense(inputs)
            handover.put(_Failure())
        except BaseException as error:  # handed to the other thread, which raises it
            handover.put(_Failure(error))

    thread = threading.Thread(target=produce, daemon=True)
    with (
        undisturbed(dense),  # both nets are guarded by this thread, as others wait meanwhile
        in_eval(small),
        _estimated(norms),
        removed_after(_refits(parts[1], found, fit, handover)),
    ):
        thread.start()
        try:
            small(inputs)
        finally:
            done.set()
            while thread.is_alive():
                while not handover.empty():
                    handover.get_nowait()
                thread.join(0.01)
    return fit.notes


def _about(left: Mapping[Node, str], norms: Sequence[_BatchNorm]) -> list[str]:
    names = list(dict.fromkeys(left.values()))
    if not names:
        return []
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    verb = "is" if len(names) == 1 else "are"
    result = "; statistics of batch norms behind are re-estimated" if norms else ""
    return [
        f"{', '.join(names[:NAMED])}{more} {verb} not refitted: only torch's own convolution and linear modules are, "
        f"where they run once with a weight of their own{result}"
    ]


@contextmanager
def _estimated(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """The norms take their statistics from what runs meanwhile, and use them at once."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # plain average
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def _block_inputs(part: nn.Module, found: Sequence[Site], seen: dict[str, Tensor]) -> list[Any]:
    """Hooks that keep the input of every block whose branch is refitted."""

    def watch(name: str) -> Callable[..., None]:
        return lambda _, args, kwargs: seen.__setitem__(name, first_tensor(args, kwargs))

    blocks = [site.block for site in found if site.block]
    return [part.get_submodule(name).register_forward_pre_hook(watch(name), with_kwargs=True) for name in blocks]


def _targets(
    part: nn.Module,
    found: Sequence[Site],
    fit: _Fit,
    handover: Queue[_Target | _Failure],
    done: threading.Event,
) -> list[Any]:
    seen: dict[str, Tensor] = {}

    def watch(site: Site) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> None:
            if done.is_set():
                return
            read = first_tensor(args, kwargs)
            rows = fit.sample(site, row_count(layer, read))
            output = output_rows(layer, result)[rows]
            if site.made is not None:
                output = _kept(output, site.made, layer)
            beside = seen.pop(site.block) if site.block else None
            usable = beside is not None and beside.shape == result.shape  # none is repeated along an axis
            shortcut = _channel_rows(beside, rows, layer) if beside is not None and usable else None
            if shortcut is not None and site.made is not None:
                shortcut = shortcut[:, site.made]
            features = _read(read, layer, site) if fit.method == "obs" or site.reads_all else None
            handover.put(_Target(site.path, rows, output, shortcut, features))

        return hook

    return _block_inputs(part, found, seen) + [
        part.get_submodule(site.path).register_forward_hook(watch(site), with_kwargs=True) for site in found
    ]


def _refits(part: nn.Module, found: Sequence[Site], fit: _Fit, handover: Queue[_Target | _Failure]) -> list[Any]:
    seen: dict[str, Tensor] = {}

    def watch(site: Site) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            target = handover.get()
            if isinstance(target, _Failure):
                raise target.error or InputError("the cut network runs more layers than the dense one; do not refit it")
            if target.path != site.path:
                raise InputError(f"the cut network runs {site.path!r} where the dense one runs {target.path!r}")
            beside = seen.pop(site.block) if site.block else None
            shortcut = None
            if beside is not None and target.shortcut is not None:
                shortcut = _channel_rows(beside, target.rows, layer)
            fit.refit(site, layer, first_tensor(args, kwargs), target, shortcut)

        return hook

    return _block_inputs(part, found, seen) + [
        part.get_submodule(site.path).register_forward_pre_hook(watch(site), with_kwargs=True) for site in found
    ]


def _channel_rows(value: Tensor, rows: Tensor, layer: nn.Module) -> Tensor:
    """What is added to the layer's output, as sampled rows (rows, channels); its channels lie where the layer's do."""
    axis = value.ndim - 1 - len(layer.kernel_size) if isinstance(layer, _ConvNd) else value.ndim - 1
    last = value.movedim(axis, -1)
    return last.reshape(-1, last.shape[-1])[rows]


def _read(x: Tensor, layer: nn.Module, site: Site) -> Tensor:
    """The dense layer's input without the channels that are gone."""
    if site.read is None or site.reads_all:
        return x
    return x[..., site.read] if isinstance(layer, nn.Linear) else x[:, site.read]


def _kept(output: Tensor, kept: Tensor, layer: nn.Module) -> Tensor:
    """Kept outputs of (n, groups, outputs): a depthwise layer loses whole groups, others equally many of each group."""
    chosen = output.flatten(1)[:, kept]
    if is_depthwise(layer):
        return chosen.reshape(len(output), -1, output.shape[2])
    return chosen.reshape(len(output), output.shape[1], -1)


@dataclass
class _Fit:
    """The least-squares step. notes: what the user should know."""

    part: nn.Module
    method: str
    rows: int
    damp: float
    notes: list[str] = field(default_factory=list)

    def sample(self, site: Site, count: int) -> Tensor:
        """At most `rows` of `count` rows, ascending, fixed by the layer's name."""
        if count <= self.rows:
            return torch.arange(count, device="cpu")
        generator = torch.Generator().manual_seed(zlib.crc32(site.path.encode()))
        return torch.randint(count, (self.rows,), generator=generator, device="cpu").sort().values

    def refit(self, site: Site, layer: nn.Module, x: Tensor, target: _Target, shortcut: Tensor | None) -> None:
        """Writes the fitted weights, and the fitted mean into the bias or the batch norm behind."""
        norm = self.part.get_submodule(site.norm) if site.norm else None
        output = target.output
        gap = None
        if target.shortcut is not None and shortcut is not None and shortcut.shape == target.shortcut.shape:
            gap = target.shortcut - shortcut
        if site.reads_all and (gap is None or not gap.any()) and _same(target.features, x):
            return
        if gap is not None:
            output = output + _before_norm(norm, gap).reshape(output.shape)
        bias = getattr(layer, "bias", None)
        read = target.features if self.method == "obs" and target.features is not None else x
        new, mean = self._fitted(site, layer, read, target.rows, output, norm is not None or bias is not None)
        with torch.no_grad():
            _write(layer, new)
            if bias is not None:
                bias.copy_(mean.reshape(-1))
            elif isinstance(norm, _BatchNorm) and norm.running_mean is not None:
                norm.running_mean.sub_(mean.reshape(-1).to(norm.running_mean.dtype))

    def _fitted(
        self, site: Site, layer: nn.Module, x: Tensor, rows: Tensor, output: Tensor, free_mean: bool
    ) -> tuple[Tensor, Tensor]:
        """New weights (groups, F, O), and the mean of what they leave over, (groups, O)."""
        old, count = weight_matrix(layer), len(rows)
        features = old.shape[1]
        parts = zip(torch.split(rows, CHUNK), torch.split(output, CHUNK), strict=True)
        pairs = ((patches(layer, x, chosen), y) for chosen, y in parts)
        if min(features, count) > FEATURES:
            self.notes.append(
                f"{site.path}: its weights stay as they are, since {features} features are too many for a refit"
            )
            return mean_only(pairs, old)
        if count < 2 * features:
            self.notes.append(
                f"{site.path}: {count} samples for {features} features, so its refit stays near the old "
                "weights; give more calibration images"
            )
        damp = self.damp * max(1.0, 2 * features / count)
        return ridge(pairs, old, count, damp, free_mean)


def _same(a: Tensor | None, b: Tensor) -> bool:
    return a is not None and a.shape == b.shape and torch.equal(a, b)


def _before_norm(norm: nn.Module | None, gap: Tensor) -> Tensor:
    """What to add before a batch norm to add `gap` (n, channels) behind it; 0 where the norm is switched off."""
    if not isinstance(norm, _BatchNorm) or norm.running_var is None:
        return gap
    scale = (norm.running_var + norm.eps).rsqrt() * (norm.weight if norm.affine else 1.0)
    usable = scale.abs() > 1e-3
    return torch.where(usable, gap / torch.where(usable, scale, 1.0), 0.0)


def _write(layer: nn.Module, matrix: Tensor) -> None:
    """The inverse of `weight_matrix`: (groups, F, O) into the layer's weight."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(layer, nn.Linear):
        weight.copy_(matrix[0].t())
    elif getattr(layer, "transposed", False):
        groups = matrix.shape[0]
        split = matrix.reshape(groups, weight.shape[0] // groups, -1, weight.shape[1]).transpose(2, 3)
        weight.copy_(split.reshape(weight.shape))
    else:
        weight.copy_(matrix.transpose(1, 2).reshape(weight.shape))
