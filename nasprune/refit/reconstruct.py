"""Closed-form refitting of a cut network on calibration inputs, without a gradient step.

Layers are refitted in execution order: the weights of each convolution or linear layer become the least-squares map
from what the layer now reads to what the dense layer gave, with a pull towards its old weights. `lstsq` reads the
inputs of the already refitted cut network (as He et al. 2017, arXiv:1707.06168, and Luo et al. 2017, arXiv:1707.06342,
do for one layer), so that each layer also makes good what went wrong before it; `obs` reads the dense network's inputs,
which is the joint weight update of the Optimal Brain Surgeon (Hassibi and Stork 1993). Departures: all layers are
refitted, with their means (in the bias, or in the running mean of the batch norm behind); and the last layer of a
residual branch also aims at what the shortcut beside it has lost. A layer that runs on several inputs, as a detector's
head on the levels of a pyramid, is fitted to all of them at once. Layers whose weights are computed first, and those of
which a run needs what another gave, keep their weights; batch norms behind them take new statistics while the refit
passes.

The dense network runs once, batch by batch, and leaves what its layers gave at sampled positions (`targets`). The cut
network runs as one batch, or as a `Stream` of many, and each layer is refitted before anything passes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasprune.calibration.called import routed
from nasprune.common.allocation import memory_reused
from nasprune.common.calls import first_tensor, removed_after
from nasprune.common.phases import Steps, unseen
from nasprune.common.shelf import Shelf
from nasprune.common.untouched import in_eval
from nasprune.cut.plan import PrunePlan
from nasprune.errors import InputError, TraceError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph
from nasprune.graph.program import Program
from nasprune.refit.fit import DAMP, Fit, listed
from nasprune.refit.layer_by_layer import refit_by_layers
from nasprune.refit.leastsquares import Choose
from nasprune.refit.sites import Site, changed, left_out, norms_behind, sites, to_refit
from nasprune.refit.targets import ROWS, Targets, targets_of

METHODS = ("none", "lstsq", "obs")
MEMORY = 2 * 2**30
SHARE = 4  # of the memory one part for targets and one for activations; the rest is for the work on one layer


def check_method(method: str) -> None:
    """Raises InputError unless `method` is one of METHODS."""
    if method not in METHODS:
        raise InputError(f"expected `reconstruct` to be one of {', '.join(METHODS)}, got {method!r}")


@memory_reused()
def reconstruct(
    dense: nn.Module,
    small: nn.Module,
    graph: ModelGraph,
    plan: PrunePlan,
    inputs: Tensor | Sequence[Tensor],
    method: str = "lstsq",
    *,
    rows: int = ROWS,
    damp: float = DAMP,
    memory: int = MEMORY,
    on_step: Steps = unseen,
) -> list[str]:
    """Refits the layers of `small` in place.

    Args:
        dense: the network that was cut; left as found.
        small: what `nasprune.build(dense, graph, plan)` gave, on the same device.
        inputs: calibration inputs (n, ...) as one batch, or batches of the same n; cast to the type of the network's
            weights. With several batches the network must be one that torch.export captures on such a batch.
        method: "lstsq", "obs" or "none".
        rows: how many output positions of a layer enter its fit at most.
        damp: pull towards the old weights, relative to the mean square of the features.
        memory: bytes, of which a quarter is for targets and one for activations that wait for a layer; the others wait
            in temporary files, and the result does not depend on it.
        on_step: told how many batches of the dense network and layers of the cut one are done.

    Returns:
        Sentences about layers that had too few samples for a free fit, and about those that were not refitted: batch
        norms behind these get the statistics of `inputs`, each after all layers before it are refitted.

    Raises:
        InputError: another method, or a model that does not run its layers in the same order when cut.
    """
    check_method(method)
    if method == "none" or not (plan.keep or plan.drop):  # what is whole needs no refit
        return []
    batches = [inputs] if isinstance(inputs, Tensor) else inputs
    part = submodule(dense, graph.scope)
    paths = {site.path for site in to_refit(sites(part, graph, plan), changed(graph, plan))}
    with Shelf(memory // SHARE) as shelf:
        targets = targets_of(dense, graph, batches, shelf, rows, on_step, paths)
        return refit(dense, small, graph, plan, targets, method, damp=damp, memory=memory, on_step=on_step)


@memory_reused()
def refit(
    dense: nn.Module,
    small: nn.Module,
    graph: ModelGraph,
    plan: PrunePlan,
    targets: Targets,
    method: str,
    *,
    damp: float = DAMP,
    memory: int = MEMORY,
    on_step: Steps = unseen,
    choose: Mapping[str, Choose] | None = None,
) -> list[str]:
    """What `reconstruct` does, for targets that are known already and may serve several plans.

    choose: by path of a layer, what puts other weights in the place of its best ones. With it all layers are refitted,
    whatever they read: those behind make good what these lose.
    """
    parts = submodule(dense, graph.scope), submodule(small, graph.scope)
    places = sites(parts[0], graph, plan)
    found = [site for site in places if not (site.by_function or site.shared) or targets.ran(site)]
    work = _Work.of(found, parts[1], graph, plan, targets, every=choose is not None)
    fit, notes = Fit(parts[1], damp, choose or {}), list[str]()
    with in_eval(small), torch.no_grad():
        if method == "obs" or len(targets.calls) > 1 or any(site.shared for site in work.chosen):
            try:
                refit_by_layers(parts, work.chosen, work.norms, targets, fit, method, memory // SHARE, on_step)
            except TraceError as error:
                if method == "obs" or any(site.shared and site.path in fit.choose for site in found):
                    raise
                once = [site for site in found if not site.shared]
                work = _Work.of(once, parts[1], graph, plan, targets, every=choose is not None)
                notes += _about_one_pass(targets, len(once) < len(found), error)
                _in_one_pass(parts[1], graph.program, work.chosen, work.norms, targets, fit)
        else:
            _in_one_pass(parts[1], graph.program, work.chosen, work.norms, targets, fit)
    return [*_about(work.left, work.norms), *notes, *fit.notes]


@dataclass(frozen=True)
class _Work:
    """What a refit does. chosen: layers to fit. norms: to be estimated, by path. left: names of layers left alone."""

    chosen: Sequence[Site]
    norms: Mapping[str, _BatchNorm]
    left: Sequence[str]

    @classmethod
    def of(
        cls, found: Sequence[Site], small: nn.Module, graph: ModelGraph, plan: PrunePlan, targets: Targets, every: bool
    ) -> _Work:
        """found: layers that can be refitted. every: whether all are, whatever they read."""
        other = changed(graph, plan)
        left = left_out(found, graph, plan, other)
        several = len(targets.calls) * targets.calls.items > 1
        norms = norms_behind(left, found, small, graph) if several else {}
        return cls(found if every else to_refit(found, other), norms, list(dict.fromkeys(left.values())))


def _about(names: Sequence[str], norms: Mapping[str, _BatchNorm]) -> list[str]:
    if not names:
        return []
    verb = "is" if len(names) == 1 else "are"
    result = "; statistics of batch norms behind are re-estimated" if norms else ""
    return [
        f"{listed(names)} {verb} not refitted: only torch's own convolutions and linear layers are, as modules or "
        f"functions, with a weight and settings of their own, where no run needs what another run of it gave{result}"
    ]


def _in_one_pass(
    part: nn.Module,
    program: Program,
    chosen: Sequence[Site],
    norms: Mapping[str, _BatchNorm],
    targets: Targets,
    fit: Fit,
) -> None:
    """Runs the network on its one batch, and refits each layer just before it runs. program: of the dense network."""
    beside: dict[str, Tensor] = {}

    def note(block: str) -> Callable[..., None]:
        return lambda _, args, kwargs: beside.__setitem__(block, first_tensor(args, kwargs))

    def before(site: Site) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = targets.read(site.path, 0)
            shortcut = beside.pop(site.block, None) if site.block else None
            fit.refit(site, layer, [len(given.rows)], [(first_tensor(args, kwargs), shortcut, given)])

        return hook

    layers = [site.layer(part, program) for site in chosen]
    handles = [
        part.get_submodule(site.block).register_forward_pre_hook(note(site.block), with_kwargs=True)
        for site in chosen
        if site.block
    ]
    handles += [
        layer.register_forward_pre_hook(before(site), with_kwargs=True)
        for layer, site in zip(layers, chosen, strict=True)
    ]
    with _estimated(list(norms.values())), removed_after(handles), routed(layers):
        targets.calls[0].clone().call(part)


def _about_one_pass(targets: Targets, shared: bool, error: TraceError) -> list[str]:
    found = []
    if len(targets.calls) > 1:
        found.append(f"the refit saw one batch only, since more need a program of the cut network: {error}")
    if shared:
        found.append(
            f"layers that run several times keep their weights, since a refit of them needs a program: {error}"
        )
    return found


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
