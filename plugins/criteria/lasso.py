"""Channel selection by LASSO: He, Zhang and Sun 2017, arXiv:1707.06168.

The next layer's output is approximated by its channels' contributions with a factor each, under a penalty on the sum of
their absolute values (the paper's equation 2). As the penalty falls from where all factors are zero, channels enter
one by one; a unit's score is the penalty at which it enters, which is the order in which the paper's rising penalty
removes them.

Departures: the whole path is computed by least angles; a channel that leaves the path again keeps the penalty at which
it first entered. Penalties are per position, of the squared change summed over outputs.
"""

import warnings
from typing import ClassVar

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import lars_path_gram

from nasprune import CoupledGroup, Criterion, ScoreContext


class Lasso(Criterion):
    """The largest penalty under which the unit still has a factor; higher = enters earlier."""

    needs_data: ClassVar[bool] = True

    def score(self, group: CoupledGroup, context: ScoreContext) -> torch.Tensor:
        return context.combine((_entry(gram.contributions()) for gram in context.grams(group)), group)


def _entry(form: torch.Tensor) -> torch.Tensor:
    """(width, width) -> (width,), float64. form: products of the units' contributions."""
    scale = max(float(form.diagonal().mean()), 1e-300)  # the solver stops at penalties near 1e-7
    gram = (form / scale).numpy()
    steady = gram + 1e-9 * np.eye(len(gram))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        alphas, _, factors = lars_path_gram(gram.sum(axis=1), steady, n_samples=1, method="lasso")
    entered = factors != 0  # (width, steps)
    first = np.maximum(entered.argmax(axis=1) - 1, 0)  # it starts to grow from the step before
    return scale * torch.from_numpy(np.where(entered.any(axis=1), alphas[first], 0.0))
