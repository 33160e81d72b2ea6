"""How near a cut network is to the dense one: along its taps, for training, and in its outputs, for choosing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.common.calls import main_output
from nasprune.common.losses import divergence
from nasprune.common.untouched import undisturbed
from nasprune.errors import InputError
from nasprune.graph.capture import submodule
from nasprune.train.taps import Tap, watched

TEMPERATURE = 4.0


@dataclass
class Nearness:
    """Compares a network with the dense one. Runs both; `loss` with gradients of the cut network.

    dense: to be run as often as needed. scope: the part that was cut, in which the taps lie. speaks: whether outputs of
    the whole network are compared; else, as for a detector, whose outputs are lists, only the taps are.
    """

    dense: nn.Module
    taps: Sequence[Tap]
    scope: str | None
    speaks: bool
    mixed: bool = False
    _known: dict[int, Tensor] = field(default_factory=dict)

    def loss(self, small: nn.Module, images: Tensor) -> Tensor:
        """The relative squared errors of the taps, summed, plus the divergence of the softened outputs a position."""
        with self._both(small) as (of_dense, of_small):
            with torch.no_grad(), self._cast(images):
                target = self.dense(images)
            with self._cast(images):
                output = small(images)
        total = self._features(of_dense, of_small)
        if self.speaks:
            total = total + self._outputs(target, output, TEMPERATURE) * TEMPERATURE**2
        return total

    def measure(self, small: nn.Module, batches: Sequence[Tensor]) -> float:
        """The mean divergence of the outputs in nats, or of the taps where outputs are not compared; low is near."""
        total, count = 0.0, 0
        with undisturbed(small), self._both(small) as (of_dense, of_small):
            for number, images in enumerate(batches):
                if self.speaks:
                    if number not in self._known:
                        self._known[number] = _spoken(self.dense(images)).float()
                    value = self._outputs(self._known[number], small(images), 1.0)
                else:
                    self.dense(images)
                    small(images)
                    value = self._features(of_dense, of_small)
                total, count = total + float(value) * len(images), count + len(images)
        return total / count

    @contextmanager
    def _both(self, small: nn.Module) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        parts = [submodule(net, self.scope) for net in (self.dense, small)]
        with watched(parts[0], self.taps) as of_dense, watched(parts[1], self.taps) as of_small:
            yield of_dense, of_small

    def _features(self, of_dense: dict[str, Tensor], of_small: dict[str, Tensor]) -> Tensor:
        parts = []
        for tap in self.taps:
            if tap.path in of_dense and tap.path in of_small:
                target, value = tap.of_dense(of_dense[tap.path]).float(), of_small[tap.path].float()
                if target.shape == value.shape:
                    parts.append((value - target).square().mean() / target.square().mean().clamp(min=1e-12))
        return torch.stack(parts).sum() if parts else torch.zeros(())

    def _outputs(self, target: Any, output: Any, temperature: float) -> Tensor:
        wanted, reached = _spoken(target).float(), _spoken(output).float()
        total: Tensor = divergence(wanted, reached, temperature)
        return total / (reached.numel() // reached.shape[1])

    def _cast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed)


def _spoken(outputs: Any) -> Tensor:
    found = main_output(outputs)
    assert found is not None
    return found


def speaks(dense: nn.Module, small: nn.Module, images: Tensor) -> bool:
    """Whether both nets give a tensor (n, classes, ...) of one shape for every image.

    Raises:
        InputError: one of them does not take the images.
    """
    found = []
    for name, net in (("teacher", dense), ("model", small)):
        try:
            with undisturbed(net):
                found.append(main_output(net(images)))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise InputError(
                f"the {name} does not take images of shape {tuple(images.shape[1:])}: {error}; give one that does"
            ) from error
    first, second = found
    return first is not None and second is not None and first.shape == second.shape and len(first) == len(images)
