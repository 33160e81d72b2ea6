"""First-order Taylor expansion of the loss: Molchanov et al. 2019, arXiv:1906.10771; Lin et al. 2018 (GDFP).

The change of the loss when a channel is switched off is, to first order, its derivative by a factor on the channel.
`form=squared`: mean over images of its square (Molchanov's equation 8 with gates). `form=absolute`: its absolute mean
over all images, the global form of Lin et al. (IJCAI 2018, equation 8), where one mask for all data is ranked over all
layers without normalisation, as is done here unless `normalise` is given.

Departures: the factors stand where the channels are read; derivatives are taken image by image, not by mini-batch.
"""

from typing import ClassVar

import torch

from nasprune import CoupledGroup, Criterion, InputError, ScoreContext


class Taylor(Criterion):
    """First-order change of the cross-entropy without the channel. form: "squared" or "absolute"."""

    needs_data: ClassVar[bool] = True

    def __init__(self, *, form: str = "squared") -> None:
        if form not in ("squared", "absolute"):
            raise InputError(f"`form` must be squared or absolute, got {form!r}")
        self._squared = form == "squared"

    def score(self, group: CoupledGroup, context: ScoreContext) -> torch.Tensor:
        slopes = (slope.double() for slope in context.gradients(group))
        if self._squared:
            return context.combine((slope.square().mean(dim=0) for slope in slopes), group)
        return context.combine((slope.mean(dim=0).abs() for slope in slopes), group)
