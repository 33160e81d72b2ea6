"""What strategies that learn noise share: the divergence of a noisy weight from a log-uniform prior."""

from __future__ import annotations

import torch
from torch import Tensor

K1, K2, K3 = 0.63576, 1.87320, 1.48695


def log_uniform_kl(log_alpha: Tensor) -> Tensor:
    """The divergence of N(w, alpha w^2) from a log-uniform prior, of any shape, up to a constant: 0 for much noise.

    Molchanov, Ashukha, Vetrov 2017, "Variational dropout sparsifies deep neural networks", arXiv:1701.05369, equation
    14, an approximation with three fitted constants. log_alpha: logarithm of the noise's variance over the weight's
    square.
    """
    return K1 * torch.sigmoid(-K2 - K3 * log_alpha) + 0.5 * torch.nn.functional.softplus(-log_alpha)


def log_uniform_slope(log_alpha: Tensor) -> Tensor:
    """The derivative of `log_uniform_kl` by each log alpha."""
    gate = torch.sigmoid(K2 + K3 * log_alpha)
    return -K1 * K3 * gate * (1 - gate) - 0.5 * torch.sigmoid(-log_alpha)
