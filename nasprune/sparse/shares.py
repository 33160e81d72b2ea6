"""What each layer loses at each number of weights that stay, and how many stay where: an exact knapsack.

The harm of a layer with few weights is that of any option (`nasprune.harm`): the second-order divergence of what the
network gives, from one backward pass. Measured at some shares of the layer's weights, and between them interpolated on
logarithmic scales, since harms rise as powers of what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nasprune.space.pareto import knapsack

MEASURED = tuple(0.66**step for step in range(1, 12))
"""Shares of a layer's weights at which its harm is measured."""
FINE = 5
"""Options between two measured shares."""
LEAST = 1e-12


@dataclass(frozen=True)
class LayerHarms:
    """A layer that may lose weights.

    size: its weights. price: what one weight that stays costs. known: number of weights that stay -> harm.
    whole: whether it keeps one of these numbers or all weights, and none between.
    """

    size: int
    price: int
    known: Mapping[int, float]
    whole: bool = False

    def at(self, kept: int) -> float:
        """The harm at a number of weights that stay, between options that of the smaller one."""
        return max((harm for count, harm in self.options() if count <= kept), key=lambda harm: -harm, default=0.0)

    def options(self) -> list[tuple[int, float]]:
        """Numbers of weights that stay, falling from all of them, and their harms, never falling."""
        kept = sorted(self.known, reverse=True)
        harms = np.maximum.accumulate([max(self.known[count], LEAST) for count in kept])
        if self.whole:
            return [(self.size, 0.0), *zip(kept, map(float, harms), strict=True)]
        steps = np.linspace(0, len(kept) - 1, FINE * (len(kept) - 1) + 1)
        places = np.arange(len(kept))
        between = np.exp(np.interp(steps, places, np.log(np.array(kept, dtype=np.float64)))).astype(int)
        worth = np.exp(np.interp(steps, places, np.log(harms)))
        return [(self.size, 0.0), *zip(map(int, between), map(float, worth), strict=True)]


def spread(layers: Mapping[str, LayerHarms], limit: int) -> dict[str, int]:
    """How many weights stay in each layer, so that the harms' sum is least and the prices of all within `limit`.

    What the options leave over, as much as it is where harms do not fall, goes to the layers whose next option is worth
    most, down to single weights where `whole` does not say that options are all there is. The least of all layers must
    be within the limit.
    """
    options = {name: layer.options() for name, layer in layers.items()}
    prices = [layer.price for layer in layers.values()]
    priced = [
        [((price * count,), harm) for count, harm in of] for price, of in zip(prices, options.values(), strict=True)
    ]
    picked = dict(zip(layers, knapsack(priced, [limit]), strict=True))
    kept = {name: options[name][option][0] for name, option in picked.items()}
    left = limit - sum(layer.price * kept[name] for name, layer in layers.items())
    grows = {name for name, layer in layers.items() if picked[name] and not layer.whole}
    while grows:
        name = max(sorted(grows), key=lambda one: _gain(options[one], picked[one], layers[one].price))
        more = min(options[name][picked[name] - 1][0] - kept[name], left // layers[name].price)
        kept[name] += more
        left -= more * layers[name].price
        picked[name] -= kept[name] == options[name][picked[name] - 1][0]
        if not picked[name] or left < layers[name].price:
            grows.remove(name)
    return kept


def _gain(options: Sequence[tuple[int, float]], picked: int, price: int) -> float:
    """Harm saved for each unit of the limit by the next larger option."""
    if not picked:
        return 0.0
    more = options[picked - 1][0] - options[picked][0]
    return (options[picked][1] - options[picked - 1][1]) / max(price * more, 1)


def lowest_first(
    scores: Mapping[str, Tensor], sizes: Mapping[str, int], price: Mapping[str, int], limit: int
) -> dict[str, int]:
    """How many weights stay in each layer where those with the least loss for what they cost go first, over all layers.

    Args:
        scores: by layer, losses of its units, (units,). sizes: weights of a unit. price: of a weight that stays.
    """
    names = list(scores)
    worth = torch.cat([scores[name] / (sizes[name] * price[name]) for name in names])
    owner = torch.cat([torch.full((len(scores[name]),), number, device="cpu") for number, name in enumerate(names)])
    cost = torch.cat([torch.full((len(scores[name]),), sizes[name] * price[name], device="cpu") for name in names])
    order = worth.argsort(descending=True, stable=True)
    stays = order[cost[order].cumsum(0) <= limit]
    counts = torch.bincount(owner[stays], minlength=len(names))
    return {name: int(counts[number]) * sizes[name] for number, name in enumerate(names)}
