"""ASAP: architecture search, anneal and prune. Noy et al. 2019, arXiv:1904.04123.

    Phi = softmax(a / T) over the candidates of a choice that are left;   a candidate with Phi < theta goes for good

During one training of the supernet the temperature T falls geometrically and the threshold theta rises, so that the
choices close one by one; a is trained on validation images and the weights on training images, in turn, after a warm-up
of the weights alone. score = when it went, as a share of the training (0 to 1); for candidates that are left 1 + Phi.

Departures: the schedule's constants are options, with defaults for short runs; theta is a share of the uniform
probability among those left, so that it means the same for every choice; a starts at the shares that the supernet has
(uniform where these are unknown) and replaces the supernet's own weights, which stay as they are; `none` does not
compete and scores 0.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from nasprune import Batch, InputError, OpChoice, OpScorer, OpTask, repeatable, weights_of

CLIP = 5.0
LEAST = 1e-6


class ASAP(OpScorer):
    """How long a candidate survives annealing and pruning. Trains the copy that it is given.

    epochs: over the training batches; warmup: of these, the first, without pruning. lr: of the weights, with momentum
    0.9; alpha_lr: of the architecture weights, Adam. start, end: temperature after the warm-up and at the end.
    threshold: theta at the end, as a share of the uniform probability; it rises from 0.
    """

    needs_data: ClassVar[bool] = True
    trains: ClassVar[bool] = True

    def __init__(
        self,
        *,
        epochs: int = 10,
        warmup: int = 2,
        lr: float = 0.025,
        alpha_lr: float = 0.05,
        start: float = 1.0,
        end: float = 0.1,
        threshold: float = 0.9,
    ) -> None:
        if not 0 <= warmup < epochs:
            raise InputError(f"expected more `epochs` than those of the `warmup`, got {epochs} and {warmup}")
        if min(lr, alpha_lr, end) <= 0 or start < end or not 0 <= threshold <= 1:
            raise InputError(
                "expected `lr`, `alpha_lr`, `end` above 0, `start` at least `end`, and `threshold` from 0 to 1; got "
                f"lr={lr}, alpha_lr={alpha_lr}, start={start}, end={end}, threshold={threshold}"
            )
        self._epochs, self._warmup, self._lr, self._alpha_lr = epochs, warmup, lr, alpha_lr
        self._start, self._end, self._threshold = start, end, threshold

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        if not task.train or not task.validation:
            raise InputError("asap needs training and validation images; give data")
        contest = _Contest(task)
        weights = torch.optim.SGD(weights_of(task), self._lr, momentum=0.9, weight_decay=3e-4)
        alphas = torch.optim.Adam(contest.alphas.values(), self._alpha_lr, betas=(0.5, 0.999))
        first, last = self._warmup * len(task.train), self._epochs * len(task.train)
        task.net.train()
        with repeatable(task), torch.enable_grad():
            for step in range(last):
                part = (step - first + 1) / (last - first)
                temperature = self._start * (self._end / self._start) ** max(part, 0.0)
                if part > 0:
                    batch = task.validation[step % len(task.validation)]
                    _step(task, contest.gates(temperature), batch, alphas)
                    contest.drop(temperature, self._threshold * part, part)
                with torch.no_grad():
                    gates = contest.gates(temperature)
                _step(task, gates, task.train[step % len(task.train)], weights)
        task.net.zero_grad(set_to_none=True)
        task.net.eval()
        return contest.scores(self._end)


class _Contest:
    """What is left of each choice. alphas, shares, left: choice -> (ops,); shares: what the supernet mixes with."""

    def __init__(self, task: OpTask) -> None:
        device = task.example.device
        self.shares: dict[str, Tensor] = {}
        self.alphas: dict[str, Tensor] = {}
        self.left: dict[str, Tensor] = {}
        for choice in task.choices:
            shares = _start(task, choice).to(device)
            self.left[choice.name] = shares > 0
            self.shares[choice.name] = shares.clamp(min=LEAST)
            self.alphas[choice.name] = self.shares[choice.name].log().requires_grad_()
        self._gone = {
            name: torch.zeros(len(left), dtype=torch.float64, device="cpu") for name, left in self.left.items()
        }

    def probabilities(self, name: str, temperature: float) -> Tensor:
        """Phi, zero for those that are gone."""
        return (self.alphas[name] / temperature).masked_fill(~self.left[name], -torch.inf).softmax(0)

    def gates(self, temperature: float) -> dict[str, Tensor]:
        """Factors that turn the supernet's shares into Phi."""
        return {name: self.probabilities(name, temperature) / shares for name, shares in self.shares.items()}

    def drop(self, temperature: float, threshold: float, part: float) -> None:
        """Candidates below the threshold go, but never the best one. part: the share of the training so far."""
        for name, left in self.left.items():
            found = self.probabilities(name, temperature).detach()
            weak = left & (found < threshold / left.sum())
            weak[found.argmax()] = False
            self.left[name] = left & ~weak
            self._gone[name][weak.cpu()] = part

    def scores(self, temperature: float) -> dict[str, Tensor]:
        return {
            name: torch.where(left, 1 + self.probabilities(name, temperature).detach().double(), 0.0).cpu()
            + self._gone[name]
            for name, left in self.left.items()
        }


def _start(task: OpTask, choice: OpChoice) -> Tensor:
    """Shares (ops,) over the candidates that compete; 0 for `none`."""
    found = task.shares(choice)
    shares = torch.ones(len(choice.ops), device="cpu") if found is None else found.float().cpu().clamp(min=LEAST)
    if choice.connecting:
        shares[list(choice.empty)] = 0.0
    return shares / shares.sum()


def _step(task: OpTask, gates: Mapping[str, Tensor], batch: Batch, optimizer: torch.optim.Optimizer) -> None:
    images, labels = (tensor.to(task.example.device) for tensor in batch)
    task.net.zero_grad(set_to_none=True)
    optimizer.zero_grad(set_to_none=True)
    with task.gated(gates):
        task.loss(task.net(images), labels).backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], CLIP)
    optimizer.step()
