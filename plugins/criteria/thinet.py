"""ThiNet: Luo, Wu and Lin 2017, arXiv:1707.06342.

Greedily removes the channel whose loss, on top of those already gone, changes the next layer's output least: the set T
of removed channels minimises the sum over samples of (sum over T of a channel's contribution) squared (the paper's
equation 6). A unit's score is the squared change done up to and with its removal.

Departures: every output of the next layer at a sampled position counts, where the paper draws one output a position;
where several layers read the channel, what its removal changes in each is combined by the option `reduce`.
"""

from typing import ClassVar

import torch

from nasprune import CoupledGroup, Criterion, ScoreContext, removal_scores


class ThiNet(Criterion):
    """Squared change of the next layers' outputs, mean over positions, up to and with the unit's removal."""

    needs_data: ClassVar[bool] = True

    def score(self, group: CoupledGroup, context: ScoreContext) -> torch.Tensor:
        forms = [gram.contributions() for gram in context.grams(group)]
        if not forms:
            return torch.zeros(group.width, device="cpu")
        changes = [form.diagonal().clone() for form in forms]
        left = torch.ones(group.width, dtype=torch.bool, device="cpu")
        order: list[int] = []
        damage: list[float] = []
        for _ in range(group.width):
            combined = context.combine(changes, group)
            unit = int(torch.where(left, combined, torch.inf).argmin())
            order.append(unit)
            damage.append(float(combined[unit]))
            left[unit] = False
            for change, form in zip(changes, forms, strict=True):
                change += 2 * form[unit]
        return removal_scores(order, damage)
