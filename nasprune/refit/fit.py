"""One layer's weights anew: from what it reads of every batch to what the dense layer gave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasprune.calibration.layers import as_weight, patches_by, weight_matrix
from nasprune.refit.leastsquares import Choose, Pairs, ridge
from nasprune.refit.sites import Site
from nasprune.refit.targets import Rows, channel_rows

CHUNK = 8_192  # samples that enter the sums at a time, where their features are few
VALUES = 2**24  # numbers that these have at most
DAMP = 1e-4
FEATURES = 8_192  # largest side of the matrix that is solved
NAMED = 5  # layers that a note lists

Reading = tuple[Tensor, Tensor | None, Rows]
"""What a layer reads of one batch; what is added to its output then, where it ends a branch; what it should give."""


@dataclass
class Fit:
    """The least-squares step, layer after layer. part: the network that is refitted.

    damp: pull towards the old weights, relative to the mean square of the features. choose: of some layers, by path,
    what puts other weights in the place of the best ones.
    """

    part: nn.Module
    damp: float = DAMP
    choose: Mapping[str, Choose] = field(default_factory=dict)
    _few: list[str] = field(default_factory=list)
    _wide: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """What the user should know."""
        found = []
        if self._few:
            found.append(
                f"refitted with few samples, so near the old weights: {listed(self._few)}; give more calibration images"
            )
        if self._wide:
            found.append(f"refitted on a part of the samples, as the features are many: {listed(self._wide)}")
        return found

    def refit(self, site: Site, layer: nn.Module, counts: Sequence[int], readings: Iterable[Reading]) -> None:
        """Writes the fitted weights, and the fitted mean into the bias or the batch norm behind.

        Args:
            counts: samples of each batch. readings: one for each batch, in order.
        """
        norm = self.part.get_submodule(site.norm) if site.norm else None
        bias, old, weight = getattr(layer, "bias", None), weight_matrix(layer), layer.weight
        assert isinstance(weight, Tensor)
        step, used = self._thinned(site, old.shape[1], counts)
        size = max(256, min(CHUNK, VALUES // (old.shape[0] * old.shape[1])))  # a depthwise layer has many groups
        pairs = _chunks(_pairs(site, layer, norm, step, size, readings), size)
        damp = self.damp * max(1.0, 2 * old.shape[1] / used)
        free_mean = norm is not None or bias is not None
        new, mean = ridge(pairs, old, used, damp, free_mean, self.choose.get(site.path))
        with torch.no_grad():
            weight.copy_(as_weight(layer, new))
            if bias is not None:
                bias.copy_(mean.reshape(-1))
            elif isinstance(norm, _BatchNorm) and norm.running_mean is not None:
                norm.running_mean.sub_(mean.reshape(-1).to(norm.running_mean.dtype))

    def _thinned(self, site: Site, features: int, counts: Sequence[int]) -> tuple[int, int]:
        """Every how many samples one is used, and how many that are: fewer than features where these are too many."""
        count, step = sum(counts), 1
        if min(features, count) > FEATURES:
            step = -(-count // FEATURES)
            self._wide.append(f"{site.path} ({features:,} features)")
        elif count < 2 * features:
            self._few.append(f"{site.path} ({count:,} samples for {features:,} features)")
        return step, sum(-(-each // step) for each in counts)


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def _pairs(
    site: Site, layer: nn.Module, norm: nn.Module | None, step: int, size: int, readings: Iterable[Reading]
) -> Pairs:
    """What is read and what is wanted, (n, groups, F) and (n, groups, O), `size` rows of a batch at most."""
    for x, beside, given in readings:
        rows, wanted = given.rows, given.output
        if site.made is not None:
            wanted = _kept(wanted, site.made, site.depthwise)
        if given.shortcut is not None and beside is not None:
            before = given.shortcut if site.made is None else given.shortcut[:, site.made]
            now = channel_rows(beside, rows, layer)
            if now.shape == before.shape:
                wanted = wanted + _before_norm(norm, before - now).reshape(wanted.shape)
        rows, wanted = rows[::step], wanted[::step]
        yield from zip(patches_by(layer, x, rows, size), torch.split(wanted, size), strict=True)


def _chunks(pairs: Pairs, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same rows, about `size` at a time: each product of few rows costs as much memory traffic as of many."""
    held: list[tuple[Tensor, Tensor]] = []
    for pair in pairs:
        held.append(pair)
        if sum(len(x) for x, _ in held) >= size:
            yield _joined(held)
            held.clear()
    if held:
        yield _joined(held)


def _joined(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(pairs) == 1:
        return pairs[0]
    read, wanted = zip(*pairs, strict=True)
    return torch.cat(read), torch.cat(wanted)


def _kept(output: Tensor, kept: Tensor, depthwise: bool) -> Tensor:
    """Kept outputs of (n, groups, outputs): a depthwise layer loses whole groups, others equally many of each group."""
    chosen = output.flatten(1)[:, kept]
    if depthwise:
        return chosen.reshape(len(output), -1, output.shape[2])
    return chosen.reshape(len(output), output.shape[1], -1)


def _before_norm(norm: nn.Module | None, gap: Tensor) -> Tensor:
    """What to add before a batch norm to add `gap` (n, channels) behind it; 0 where the norm is switched off."""
    if not isinstance(norm, _BatchNorm) or norm.running_var is None:
        return gap
    scale = (norm.running_var + norm.eps).rsqrt() * (norm.weight if norm.affine else 1.0)
    usable = scale.abs() > 1e-3
    return torch.where(usable, gap / torch.where(usable, scale, 1.0), 0.0)
