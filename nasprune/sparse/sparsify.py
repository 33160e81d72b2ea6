"""Zeros into the weights of a network: how many in each layer, which ones, and what the other weights become.

First one backward pass prices what every layer loses at several shares of its weights, and a knapsack spreads the
budget (`shares`). Then the layers are gone through in the order in which they run, as in a refit (`nasprune.refit`):
each is fitted to what the dense network gives there from what it now reads, loses its weights in the order of the
method, and the weights that stay are fitted anew, so that later layers make good what earlier ones lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial

from torch import Tensor, nn

from nasprune.calibration.layers import as_weight
from nasprune.common.phases import Steps, unseen
from nasprune.common.shelf import Shelf
from nasprune.cut.plan import PrunePlan
from nasprune.cut.weight_masks import WeightMasks
from nasprune.errors import BudgetError, InputError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph
from nasprune.harm.rows import LARGEST
from nasprune.refit.fit import listed
from nasprune.refit.reconstruct import MEMORY, SHARE, refit
from nasprune.refit.sites import sites
from nasprune.refit.steady import steady
from nasprune.refit.targets import targets_of
from nasprune.sparse.contract import Sparsifier
from nasprune.sparse.layers import Priced, problem, scored, targets, thinned, too_wide, uses
from nasprune.sparse.patterns import Pattern
from nasprune.sparse.shares import LayerHarms, lowest_first, spread

Harms = Mapping[str, Mapping[int, float]]
"""Layer -> number of weights that stay -> harm."""
DAMP = 1e-3
SPREADS = ("harm", "global", "uniform")


def asked(make: Callable[[], Harms]) -> Harms:
    """Nothing is remembered."""
    return make()


@dataclass(frozen=True)
class ZeroBudget:
    """What may stay. limit: numbers of all parameters that are not zero, or multiply-adds where these count.

    flops: multiply-adds of the network as it is, `None` where numbers count.
    """

    limit: int
    flops: int | None = None


@dataclass(frozen=True)
class ZeroSpace:
    """Where zeros may come. spread: how the budget is shared out among layers.

    "harm": least harm to what the network gives; "global": the method's own losses, one threshold for all layers;
    "uniform": the same share of every layer. include, exclude: globs on paths of layers, and all below.
    """

    pattern: Pattern = field(default_factory=Pattern)
    spread: str = "harm"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.spread not in SPREADS:
            raise InputError(f"expected `spread` to be one of {', '.join(SPREADS)}, got {self.spread!r}")
        if self.spread == "global" and self.pattern.m:
            raise InputError(f"the pattern {self.pattern} has no threshold over all layers; leave `spread` out")

    def takes(self, path: str) -> bool:
        """Whether the layer at `path` may have zeros."""
        parts = path.split(".")
        above = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]

        def among(globs: tuple[str, ...]) -> bool:
            return any(fnmatchcase(each, glob) for each in above for glob in globs)

        return (not self.include or among(self.include)) and not among(self.exclude)


@dataclass(frozen=True)
class LayerZeros:
    """What came of one layer. size: its weights; kept: those that are not held at zero; harm: as estimated, or 0."""

    layer: str
    size: int
    kept: int
    harm: float = 0.0


@dataclass(frozen=True)
class Sparsified:
    """The masks of a network, and what came of each layer, in the order in which they run. notes: what to say."""

    masks: WeightMasks
    layers: tuple[LayerZeros, ...]
    notes: tuple[str, ...]


def sparsify(
    dense: nn.Module,
    small: nn.Module,
    graph: ModelGraph,
    plan: PrunePlan,
    budget: ZeroBudget,
    space: ZeroSpace,
    sparsifier: Sparsifier,
    priced: Sequence[Tensor],
    images: Sequence[Tensor],
    *,
    seed: int = 0,
    memory: int = MEMORY,
    variance: Tensor | None = None,
    on_price: Steps = unseen,
    on_step: Steps = unseen,
    once: Callable[[Callable[[], Harms]], Harms] = asked,
) -> Sparsified:
    """Zeros in the weights of `small`, in place, and all its layers refitted.

    Args:
        dense: the network that was cut; left as found. small: what it was cut to; may be a copy of `dense` itself.
        graph: of `dense`. plan: that cut it.
        priced: calibration inputs (n, ...) that harms are measured on. images: batches that the refit sees.
        variance: of outputs that are numbers, (outputs,); `None` where they are classes.
        on_price: told how many batches are read and layers priced. on_step: how many batches and layers are refitted.
        once: gives what it is given to make, or what that gave before for the same network, space and method.

    Raises:
        BudgetError: the layers that may have zeros cannot lose as much. InputError: none may have any.
    """
    part = submodule(small, graph.scope)
    every = [site for site in sites(submodule(dense, graph.scope), graph, plan) if not site.by_function]
    places = steady(dense, graph, every, images[0])
    found = {path: target for path, target in targets(part, places, space.pattern).items() if space.takes(path)}
    wide = _about_wide({path: count for path, count in too_wide(part, places).items() if space.takes(path)})
    if not found:
        raise InputError(
            f"no layer can have zeros in the pattern {space.pattern}: layers must be torch's own convolutions and "
            "linear layers, no run of one may need what another gave, and their sizes must fit; choose another "
            "pattern, or other layers" + "".join(f". {note}" for note in wide)
        )
    price = uses(part, graph, found) if budget.flops is not None else dict.fromkeys(found, 1)
    own = sum(target.size * price[path] for path, target in found.items())
    whole = budget.flops if budget.flops is not None else sum(value.numel() for value in part.parameters())
    room = budget.limit - (whole - own)
    least = whole - own + sum(min(target.counts()) * price[path] for path, target in found.items())
    if least > budget.limit:
        raise BudgetError(
            _refusal(budget, least, whole, space.pattern, narrowed=bool(plan.keep or plan.drop), wide=wide)
        )
    pricing = Priced(small, graph, found, sparsifier, priced, seed, variance)
    kept, known = _shared_out(pricing, price, room, space, lambda: once(lambda: pricing.harms(on_price)))
    masks: dict[str, Tensor] = {}

    def choose(path: str, hessian: Tensor, best: Tensor) -> Tensor:
        target = found[path]
        layer = problem(target, best.float().cpu(), hessian.float().cpu(), pricing.curvatures.get(path))
        mask = space.pattern.mask(scored(sparsifier, layer), kept[path], target.kernel)
        masks[path] = mask
        exact = problem(target, best.cpu(), hessian.cpu())
        return thinned(exact, mask, updates=sparsifier.updates).to(best.device)

    chosen: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
        path: partial(choose, path) for path, target in found.items() if kept[path] < target.size
    }
    with Shelf(memory // SHARE) as shelf:
        aims = targets_of(dense, graph, images, shelf, on_step=on_step)
        notes = refit(
            dense, small, graph, plan, aims, "lstsq", damp=DAMP, memory=memory, on_step=on_step, choose=chosen
        )
    made = {f"{path}.weight": as_weight(found[path].layer, mask) for path, mask in masks.items()}
    layers = tuple(
        LayerZeros(path, target.size, int(masks[path].sum()) if path in masks else target.size, known.get(path, 0.0))
        for path, target in found.items()
    )
    return Sparsified(WeightMasks(made), layers, (*notes, *wide))


def _shared_out(
    pricing: Priced, price: Mapping[str, int], room: int, space: ZeroSpace, harms: Callable[[], Harms]
) -> tuple[dict[str, int], dict[str, float]]:
    """How many weights stay in each layer, and the estimated harm of that, where it is known."""
    found = pricing.found
    if space.spread == "uniform":
        share = min(1.0, room / sum(target.size * price[path] for path, target in found.items()))
        return {path: int(share * target.size) for path, target in found.items()}, {}
    if space.spread == "global":
        scores = pricing.losses()
        sizes = {path: space.pattern.size or target.kernel for path, target in found.items()}
        return lowest_first(scores, sizes, price, room), {}
    known = harms()
    whole = bool(space.pattern.m)
    layers = {path: LayerHarms(target.size, price[path], known[path], whole) for path, target in found.items()}
    kept = spread(layers, room)
    return kept, {path: layers[path].at(count) for path, count in kept.items()}


def _refusal(
    budget: ZeroBudget, least: int, whole: int, pattern: Pattern, *, narrowed: bool, wide: Sequence[str]
) -> str:
    """Why even the fewest weights of all layers are too many. narrowed: whether widths or blocks went before."""
    unit = "numbers that are not zero" if budget.flops is None else "multiply-adds with weights that are not zero"
    then = "or let widths take more" if narrowed else "or let widths go, too: --space widths+weights"
    return ". ".join(
        [
            f"the budget leaves {budget.limit:,} {unit}, and zeros in the pattern {pattern} reach {least:,} of "
            f"{whole:,} at least; ask for more, {then}",
            *wide,
        ]
    )


def _about_wide(found: Mapping[str, int]) -> list[str]:
    """A sentence about layers that no sums are held of; none where there are none."""
    if not found:
        return []
    named = listed([f"{path} ({count:,})" for path, count in found.items()])
    keep, their = ("keeps", "its") if len(found) == 1 else ("keep", "their")
    return [f"{named} {keep} all weights: {their} features are more than the {LARGEST:,} that sums are held of"]
