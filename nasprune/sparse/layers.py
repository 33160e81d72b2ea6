"""The layers of a network that may have zeros, as quadratic problems, and what their zeros do to the whole network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from nasprune.calibration.layers import row_count, weight_matrix
from nasprune.common.calls import first_tensor, removed_after
from nasprune.common.phases import Steps, unseen
from nasprune.common.untouched import undisturbed
from nasprune.errors import PluginError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph
from nasprune.harm.fisher import Change, curvatures, priced
from nasprune.harm.rows import LARGEST, damped, read_rows
from nasprune.refit.sites import Site
from nasprune.sparse.contract import SparseLayer, Sparsifier
from nasprune.sparse.patterns import Pattern
from nasprune.sparse.restricted import restricted
from nasprune.sparse.shares import MEASURED

QUICK = 8
"""Steps of gradients from one share to the next, where outputs are not solved exactly."""
TEMPERATURE = 4.0
NUMBERS = 2**27
"""In the changes of weights that one backward pass prices."""


@dataclass(frozen=True)
class Target:
    """A layer that may have zeros. kernel: positions of its kernel."""

    path: str
    layer: nn.Module
    pattern: Pattern
    kernel: int

    @property
    def size(self) -> int:
        return int(weight_matrix(self.layer).numel())

    def counts(self) -> list[int]:
        """Numbers of weights that stay at which harms are measured; one for an N:M pattern."""
        if self.pattern.m:
            return [self.size // self.pattern.m * self.pattern.n]
        return sorted({max(1, round(share * self.size)) for share in MEASURED}, reverse=True)


def targets(part: nn.Module, found: Sequence[Site], pattern: Pattern) -> dict[str, Target]:
    """The layers, by path, that fit the pattern, and have no more features than sums are held of."""
    kept = {}
    for site in found:
        layer = part.get_submodule(site.path)
        kernel = 1 if isinstance(layer, nn.Linear) else int(torch.tensor(layer.kernel_size).prod())
        features = weight_matrix(layer).shape[1]
        kernel = 1 if features % kernel else kernel
        if features <= LARGEST and pattern.fits(features, kernel) and not (pattern.size == 0 and kernel == 1):
            kept[site.path] = Target(site.path, layer, pattern, kernel)
    return kept


def too_wide(part: nn.Module, found: Sequence[Site]) -> dict[str, int]:
    """Paths of layers that have more features than sums are held of, and how many they have."""
    features = {site.path: weight_matrix(part.get_submodule(site.path)).shape[1] for site in found}
    return {path: count for path, count in features.items() if count > LARGEST}


def uses(part: nn.Module, graph: ModelGraph, found: Mapping[str, Target]) -> dict[str, int]:
    """By layer: how often each weight multiplies in one run on one input, as fvcore counts multiply-adds."""
    seen = dict.fromkeys(found, 0)

    def watch(path: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = first_tensor(args, kwargs)
            spread = isinstance(layer, _ConvTransposeNd)
            seen[path] += x.numel() // x.shape[1] if spread else row_count(layer, x)

        return hook

    handles = [part.get_submodule(path).register_forward_pre_hook(watch(path), with_kwargs=True) for path in found]
    with removed_after(handles), undisturbed(part):
        graph.example_inputs.clone().call(part)
    return seen


def problem(target: Target, weights: Tensor, hessian: Tensor, curvature: Tensor | None = None) -> SparseLayer:
    """The layer as a quadratic problem about `weights` (groups, F, O), with `hessian` (groups, F, F)."""
    flat = hessian.diagonal(dim1=1, dim2=2)[:, :, None].expand_as(weights) if curvature is None else curvature
    return SparseLayer(weights, hessian, flat, target.pattern, target.kernel)


def scored(sparsifier: Sparsifier, layer: SparseLayer) -> Tensor:
    """The method's scores of the layer's weights, (groups, F, O).

    Raises:
        PluginError: they have another shape, or are not finite.
    """
    found, wanted = sparsifier.score(layer), tuple(layer.weights.shape)
    name = type(sparsifier).__name__
    if not isinstance(found, Tensor) or tuple(found.shape) != wanted:
        given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise PluginError(
            f"the sparsifier `{name}` must give scores of the shape of the weights, {wanted}, got {given}"
        )
    if not found.dtype.is_floating_point or not bool(found.isfinite().all()):
        raise PluginError(f"the sparsifier `{name}` gives scores that are not finite floating-point numbers")
    return found.detach()


def thinned(
    layer: SparseLayer, mask: Tensor, *, updates: bool, start: Tensor | None = None, steps: int | None = None
) -> Tensor:
    """The weights (groups, F, O), zero outside of the mask; those that stay make good what the others gave.

    start, steps: as of `restricted`.
    """
    solved = restricted(layer.hessian, layer.weights, mask, start=start, steps=steps) if updates else None
    weights = layer.weights if solved is None else solved
    return torch.where(mask, weights, 0.0)


@dataclass
class Priced:
    """What zeros do to a network: its layers as problems, about the weights that it has.

    model: left as found. batches: calibration inputs (n, ...). variance: of outputs that are numbers.
    curvatures: by layer, filled where the method asks.
    """

    model: nn.Module
    graph: ModelGraph
    found: Mapping[str, Target]
    sparsifier: Sparsifier
    batches: Sequence[Tensor]
    seed: int = 0
    variance: Tensor | None = None
    curvatures: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        part = submodule(self.model, self.graph.scope)
        self._layers = {f"{path}.weight": (part.get_submodule(path),) for path in self.found}
        if self.sparsifier.needs_curvature:
            known = curvatures(
                self.model, self.graph, self._layers, self.batches, self.seed, TEMPERATURE, self.variance
            )
            self.curvatures.update({name.removesuffix(".weight"): value for name, value in known.items()})

    def problems(self, on_step: Steps = unseen) -> Iterator[tuple[str, SparseLayer]]:
        """The layers, one after the other. on_step: told how many batches were read, and layers worked on."""
        read, of = len(self.batches), len(self.batches) + len(self.found)
        sums = read_rows(self.model, self._layers, self.batches, lambda done, _: on_step(done, of))
        for number, (path, target) in enumerate(self.found.items()):
            on_step(read + number, of)
            weights = weight_matrix(target.layer).detach().float().cpu()
            hessian = damped(sums.pop(f"{path}.weight")).float().cpu()
            yield path, problem(target, weights, hessian, self.curvatures.get(path))

    def losses(self) -> dict[str, Tensor]:
        """By layer: the method's scores of its units, (units,)."""
        found = {}
        for path, layer in self.problems():
            units = layer.pattern.units(layer.weights.shape[1], layer.kernel)
            found[path] = scored(self.sparsifier, layer)[:, units].sum(2).reshape(-1)
        return found

    def harms(self, on_step: Steps = unseen) -> dict[str, dict[int, float]]:
        """By layer: number of weights that stay -> harm, to what the whole network gives. on_step: as of `problems`.

        Zeros in a layer that its first output does not depend on are priced above all others together.
        """
        by_layer: dict[str, dict[int, float]] = {path: {} for path in self.found}
        changes: dict[str, Change] = {}
        held = 0
        for path, layer in self.problems(on_step):
            numbers = self.found[path].size * len(self.found[path].counts())
            if changes and held + numbers > NUMBERS:
                self._price(changes, by_layer)
                changes, held = {}, 0
            changes[f"{path}.weight"] = Change([self._changes(path, layer)])
            held += numbers
        self._price(changes, by_layer)
        ceiling = sum((max(harms.values()) for harms in by_layer.values() if harms), start=1.0)
        for path, target in self.found.items():
            if not by_layer[path]:
                by_layer[path] = {count: ceiling * (2 - count / target.size) for count in target.counts()}
        return by_layer

    def _price(self, changes: Mapping[str, Change], by_layer: dict[str, dict[int, float]]) -> None:
        layers = {name: self._layers[name] for name in changes}
        known = priced(self.model, self.graph, layers, changes, (), self.batches, self.seed, TEMPERATURE, self.variance)
        for (path, kept), harm in known.items():
            by_layer[path][kept] = harm

    def _changes(self, path: str, layer: SparseLayer) -> tuple[list[tuple[str, int]], Tensor]:
        """Of one layer: what is priced, and what each changes in the weights, (groups * F * O, numbers)."""
        counts, scores = self.found[path].counts(), scored(self.sparsifier, layer)
        columns, weights = [], layer.weights
        for kept in counts:  # falling, so that each solution starts the next
            mask = layer.pattern.mask(scores, kept, layer.kernel)
            weights = thinned(layer, mask, updates=self.sparsifier.updates, start=weights, steps=QUICK)
            columns.append((weights - layer.weights).reshape(-1))
        return [(path, kept) for kept in counts], torch.stack(columns, 1)
