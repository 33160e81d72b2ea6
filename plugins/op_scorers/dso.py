"""DSO-NAS: you only search once. Zhang et al. 2018, arXiv:1811.01567.

A scale lambda on every candidate's output starts at 1 and is trained with the weights under an L1 penalty, by the
paper's accelerated proximal gradient (APG-NAG), with step eta, penalty gamma and momentum mu:

    z = soft(lambda - eta dL/dlambda, eta gamma),   v' = z - lambda + mu v,   lambda' = max(0, z + mu v')

where soft(z, t) = sign(z) max(|z| - t, 0). Scales that reach zero say which candidates go. score = lambda at the end,
plus a thousandth of its mean over the training, which ranks those at zero by how long they resisted.

Departures: the scales multiply the supernet's mixture, whose own weights stay as they are; their slopes are clipped to
a joint norm of 1, without which scales before a batch norm run away; the paper prunes the final network in place and
weighs gamma by the FLOPs that are left, here the budget is kept by whoever reads the scores; `none`, whose scale does
nothing, scores 0.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from nasprune import InputError, OpScorer, OpTask, open_gates, repeatable, weights_of

CLIP = 5.0
SCALE_CLIP = 1.0


class DSO(OpScorer):
    """Scales of candidates, made sparse by training. Trains the copy that it is given.

    gamma: penalty. epochs: over the training batches. lr: of the weights, with momentum 0.9. scale_lr, momentum: eta
    and mu of the scales.
    """

    needs_data: ClassVar[bool] = True
    trains: ClassVar[bool] = True

    def __init__(
        self,
        *,
        gamma: float = 0.02,
        epochs: int = 10,
        lr: float = 0.025,
        scale_lr: float = 0.1,
        momentum: float = 0.9,
    ) -> None:
        if gamma < 0 or epochs < 1 or min(lr, scale_lr) <= 0 or not 0 <= momentum < 1:
            raise InputError(
                "expected `gamma` at least 0, `epochs` at least 1, `lr` and `scale_lr` above 0, `momentum` from 0 to "
                f"below 1; got gamma={gamma}, epochs={epochs}, lr={lr}, scale_lr={scale_lr}, momentum={momentum}"
            )
        self._gamma, self._epochs, self._lr = gamma, epochs, lr
        self._eta, self._mu = scale_lr, momentum

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        if not task.train:
            raise InputError("dso needs training images; give data")
        scales = open_gates(task)
        speeds = {name: torch.zeros_like(scale) for name, scale in scales.items()}
        means = {name: torch.zeros_like(scale) for name, scale in scales.items()}
        own = weights_of(task)
        weights = torch.optim.SGD(own, self._lr, momentum=0.9, weight_decay=3e-4)
        steps = self._epochs * len(task.train)
        task.net.train()
        with repeatable(task), torch.enable_grad():
            for step in range(steps):
                images, labels = (tensor.to(task.example.device) for tensor in task.train[step % len(task.train)])
                task.net.zero_grad(set_to_none=True)
                with task.gated(scales):
                    task.loss(task.net(images), labels).backward()
                nn.utils.clip_grad_norm_(own, CLIP)
                nn.utils.clip_grad_norm_(scales.values(), SCALE_CLIP)
                weights.step()
                for name, scale in scales.items():
                    slope = torch.zeros_like(scale) if scale.grad is None else scale.grad
                    values, speeds[name] = apg_nag(
                        scale.detach(), slope, speeds[name], eta=self._eta, gamma=self._gamma, mu=self._mu
                    )
                    scale.data.copy_(values)
                    scale.grad = None
                    means[name] += values / steps
        task.net.zero_grad(set_to_none=True)
        task.net.eval()
        found = {name: (scale.detach() + 1e-3 * means[name]).double().cpu() for name, scale in scales.items()}
        for choice in task.choices:
            if choice.connecting:
                found[choice.name][list(choice.empty)] = 0.0
        return found


def apg_nag(
    scale: Tensor, slope: Tensor, speed: Tensor, *, eta: float, gamma: float, mu: float
) -> tuple[Tensor, Tensor]:
    """One step: the next scales and their speed."""
    z = scale - eta * slope
    z = z.sign() * (z.abs() - eta * gamma).clamp(min=0)
    speed = z - scale + mu * speed
    return (z + mu * speed).clamp(min=0), speed
