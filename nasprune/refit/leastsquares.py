"""Ridge regression of a layer's weights: from what it reads to what it should give, pulled towards the old weights.

Weights are (groups, F, O) as `weight_matrix` gives them; pairs are chunks of what is read, (n, groups,
F), and what is wanted, (n, groups, O). Each way returns new weights in the type of the old ones, and the mean of what
they leave over, (groups, O) in float64, which belongs into the bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nasprune.calibration.products import add_products, mirror
from nasprune.common.calls import at_least_single

Pairs = Iterable[tuple[Tensor, Tensor]]
Choose = Callable[[Tensor, Tensor], Tensor]
"""From mean products of the features (groups, F, F) and the best weights (groups, F, O), both float64, to others."""
WIDTH = 2_048  # features at a time where these outnumber the samples


@dataclass
class Moments:
    """Sums over rows, for each convolution group: features (F) and outputs (O), in float64.

    Products are taken about the means of the first rows, which keeps them exact where means are far above deviations.
    """

    count: int = 0
    parts: dict[str, Tensor] = field(default_factory=dict)
    shifts: tuple[Tensor, Tensor] | None = None

    def add(self, x: Tensor, y: Tensor) -> None:
        """x: (n, groups, F). y: (n, groups, O)."""
        x, y = at_least_single(x), at_least_single(y)
        if self.shifts is None:
            self.shifts = x.mean(0), y.mean(0)
        x, y = x - self.shifts[0], y - self.shifts[1]
        self.count += len(x)
        by_group = x.transpose(0, 1)
        if "xx" not in self.parts:
            groups, _, features = by_group.shape
            self.parts["xx"] = x.new_zeros(groups, features, features, dtype=torch.float64)
        add_products(self.parts["xx"], by_group)
        for name, value in (
            ("xy", by_group.transpose(1, 2) @ y.transpose(0, 1)),
            ("x", x.sum(0)),
            ("y", y.sum(0)),
        ):
            known = self.parts.get(name)
            self.parts[name] = value.double() if known is None else known.add_(value)

    def means(self) -> tuple[Tensor, Tensor]:
        """Of the features (groups, F) and of the outputs (groups, O)."""
        assert self.shifts is not None
        x, y = self.parts["x"] / self.count, self.parts["y"] / self.count
        return x + self.shifts[0].double(), y + self.shifts[1].double()

    def products(self, centred: bool) -> tuple[Tensor, Tensor]:
        """Sums of features by features and of features by outputs, about their means or about zero."""
        off_x, off_y = self.parts["x"] / self.count, self.parts["y"] / self.count
        xx = mirror(self.parts["xx"]) - self.count * _outer(off_x, off_x)
        xy = self.parts["xy"] - self.count * _outer(off_x, off_y)
        if centred:
            return xx, xy
        x, y = self.means()
        return xx + self.count * _outer(x, x), xy + self.count * _outer(x, y)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a[:, :, None] * b[:, None, :]


def ridge(
    pairs: Pairs, old: Tensor, count: int, damp: float, free_mean: bool, choose: Choose | None = None
) -> tuple[Tensor, Tensor]:
    """Refits `old` to `count` samples.

    Args:
        damp: the pull towards the old weights, relative to the mean square of the features.
        free_mean: whether something behind the layer takes up the mean, so that only deviations count.
        choose: puts other weights in the place of the best ones; the mean is that of what these leave over.
    """
    if choose is None and count < old.shape[1]:
        return _solved_by_sample(pairs, old, damp, free_mean)
    moments = Moments()
    for read, wanted in pairs:
        moments.add(read, wanted)
    return _solved(moments, old, damp, free_mean, choose)


def _solved(
    moments: Moments, old: Tensor, damp: float, free_mean: bool, choose: Choose | None
) -> tuple[Tensor, Tensor]:
    xx, xy = moments.products(centred=free_mean)
    x, y = moments.means()
    start = old.double()
    pull = damp * xx.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    pulled = xx + torch.diag_embed(pull[:, None].expand(xx.shape[:2]))
    best = start + torch.linalg.solve(pulled, xy - xx @ start)
    new = (best if choose is None else choose(pulled / moments.count, best)).to(old.dtype)
    return new, y - (x[:, None, :] @ new.double())[:, 0]


def _solved_by_sample(pairs: Pairs, old: Tensor, damp: float, free_mean: bool) -> tuple[Tensor, Tensor]:
    """What `_solved` gives, from products of samples by samples: for fewer samples than features."""
    read, wanted = zip(*pairs, strict=True)
    x = at_least_single(torch.cat(read)).transpose(0, 1)
    y = at_least_single(torch.cat(wanted)).transpose(0, 1)
    mean_x, mean_y = (value.mean(1, keepdim=True, dtype=torch.float64) for value in (x, y))
    if free_mean:
        x, y = x - mean_x.to(x.dtype), y - mean_y.to(y.dtype)
    products = (x @ x.transpose(1, 2)).double()
    squares = products.diagonal(dim1=1, dim2=2)
    pull = damp * (squares.sum(1) / old.shape[1]).clamp(min=1e-12)
    missing = (y - x @ old.to(x.dtype)).double()
    each = torch.linalg.solve(products + torch.diag_embed(pull[:, None].expand(squares.shape)), missing)
    new, mean = old.clone(), mean_y
    for start in range(0, old.shape[1], WIDTH):  # features in turn, to save memory
        part = slice(start, start + WIDTH)
        new[:, part] += (x[:, :, part].double().transpose(1, 2) @ each).to(old.dtype)
        mean = mean - mean_x[:, :, part] @ new[:, part].double()
    return new, mean[:, 0]
