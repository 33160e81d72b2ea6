"""How near a cut network is to the dense one: along its taps, for training, and in its outputs, for choosing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves, tree_map_only

from nasprune.common.blame import told
from nasprune.common.calls import in_type_of, removed_after, spoken_output
from nasprune.common.losses import divergence
from nasprune.common.untouched import undisturbed
from nasprune.errors import InputError
from nasprune.graph.capture import submodule
from nasprune.train.taps import Tap, watched

TEMPERATURE = 4.0
Result = TypeVar("Result")


@dataclass(frozen=True)
class Compared:
    """What both networks gave on the same images. of_dense, of_small: outputs of tapped modules, by path.

    variance: of outputs that are numbers, as of `divergence`.
    """

    taps: Sequence[Tap]
    target: Any
    output: Any
    of_dense: dict[str, Tensor]
    of_small: dict[str, Tensor]
    variance: Tensor | None = None

    def softened(self, temperature: float) -> Tensor:
        """The mean divergence of the outputs at a temperature T, times T² so that gradients keep their size."""
        wanted, reached = _spoken(self.target).float(), _spoken(self.output).float()
        total: Tensor = divergence(wanted, reached, temperature, self.variance)
        return total / (reached.numel() // reached.shape[1]) * temperature**2

    def features(self) -> Tensor:
        """The relative squared errors of the taps, summed."""
        parts = []
        for tap in self.taps:
            if tap.path in self.of_dense and tap.path in self.of_small:
                target, value = tap.of_dense(self.of_dense[tap.path]).float(), self.of_small[tap.path].float()
                if target.shape == value.shape:
                    size = torch.linalg.vector_norm(target).square() / target.numel()
                    parts.append(functional.mse_loss(value, target) / size.clamp(min=1e-12))
        return torch.stack(parts).sum() if parts else torch.zeros((), device="cpu")


@dataclass
class Nearness:
    """Compares a network with the dense one. Runs both, the dense one without gradients.

    dense: to be run as often as needed. scope: the part that was cut, in which the taps lie. speaks: whether outputs of
    the whole network are compared; else, as for a detector, whose outputs are lists, only the taps are.
    mixed: whether they run in bfloat16 where that is safe. variance: of outputs that are numbers.
    """

    dense: nn.Module
    taps: Sequence[Tap]
    scope: str | None
    speaks: bool
    mixed: bool = False
    variance: Tensor | None = None
    _known: dict[int, Tensor] = field(default_factory=dict)

    def asked(self, images: Tensor) -> Any:
        """What the dense network gives for images (n, ...), which it gets in its own type."""
        return self.dense(in_type_of(self.dense, images))

    def loss(self, small: nn.Module, images: Tensor) -> Tensor:
        """The relative squared errors of the taps, plus the divergence of the softened outputs."""
        if not self.speaks:
            return self._of_part(small, images)
        with self.compared(small, images) as compared:
            return compared.features() + compared.softened(TEMPERATURE)

    def measure(self, small: nn.Module, batches: Sequence[Tensor]) -> float:
        """The mean divergence of the outputs in nats, or of the taps where outputs are not compared; low is near."""
        total, count = 0.0, 0
        with undisturbed(small):
            for number, images in enumerate(batches):
                if self.speaks:
                    if number not in self._known:
                        self._known[number] = _spoken(self.asked(images)).float()
                    value = self._said(self._known[number], small(images)).softened(1.0)
                else:
                    value = self._of_part(small, images, exact=True)
                total, count = total + float(value) * len(images), count + len(images)
        return total / count

    @contextmanager
    def compared(self, small: nn.Module, images: Tensor, *, exact: bool = False) -> Iterator[Compared]:
        """Both networks have run on the images (n, ...). exact: in single precision even where `mixed`."""
        parts = [submodule(_plain(net), self.scope) for net in (self.dense, small)]
        with watched(parts[0], self.taps) as of_dense, watched(parts[1], self.taps) as of_small:
            with self._cast(images, exact):
                with torch.no_grad():
                    target = self.asked(images)
                output = small(images)
            yield Compared(self.taps, target, output, of_dense, of_small, self.variance)

    def _of_part(self, small: nn.Module, images: Tensor, *, exact: bool = False) -> Tensor:
        """The relative squared errors of the taps, summed; what runs behind the part that was cut is spared."""
        with self._cast(images, exact):
            return self.beside(small, lambda net: _as_far_as(submodule(net, self.scope), lambda: net(images)))[1]

    def beside(self, small: nn.Module, run: Callable[[nn.Module], Result]) -> tuple[Result, Tensor]:
        """What `run` of the small network gives, and the relative squared errors of the taps, summed.

        The dense network's part reads what the small one's has read: a network that moves its inputs at random, as it
        may in training, moves them once. Only where weights before the part are trained, the dense network runs from
        its start, since else these would learn to give what both parts agree on.

        Raises:
            InputError: the part that was cut did not run.
        """
        dense, part = (submodule(_plain(net), self.scope) for net in (self.dense, small))
        read: list[tuple[Any, Any]] = []
        noted = part.register_forward_pre_hook(lambda _, *given: read.append(_kept(given)), with_kwargs=True)
        with removed_after([noted]), watched(part, self.taps) as of_small:
            result = run(small)
        if not read:
            raise InputError(
                "the part of the network that was cut did not run, so nothing of it can be compared with the teacher; "
                "let the task's loss_of run it, or leave `teacher` out"
            )
        trained = any(isinstance(value, Tensor) and value.requires_grad for value in tree_leaves(read))
        with torch.no_grad(), watched(dense, self.taps) as of_dense:
            if trained:
                _as_far_as(dense, lambda: run(self.dense), times=len(read))
            else:
                args, named = tree_map_only(Tensor, partial(in_type_of, dense), read[-1])
                dense(*args, **named)
        return result, Compared(self.taps, None, None, of_dense, of_small).features()

    def _said(self, target: Tensor, output: Any) -> Compared:
        """The outputs alone."""
        return Compared((), target, output, {}, {}, self.variance)

    def _cast(self, images: Tensor, exact: bool) -> AbstractContextManager[Any]:
        if not self.mixed or exact:
            return nullcontext()
        return torch.autocast(images.device.type, torch.bfloat16)


def _kept(read: Any) -> Any:
    """Copies of what a part reads, since it may write into it; whether they need gradients shows."""
    return tree_map_only(Tensor, lambda value: value.detach().clone().requires_grad_(value.requires_grad), read)


class _Enough(Exception):
    """What was to run has run."""


def _as_far_as(part: nn.Module, run: Callable[[], object], *, times: int = 1) -> None:
    """Runs a network until its part has run so many times."""
    runs = 0

    def stop(*_: object) -> None:
        nonlocal runs
        runs += 1
        if runs == times:
            raise _Enough

    with suppress(_Enough), removed_after([part.register_forward_hook(stop)]):
        run()


def _plain(net: nn.Module) -> nn.Module:
    """The network itself, out of what Lightning Fabric puts around it, and torch where several processes train it."""
    inner = getattr(net, "_forward_module", None)
    found = inner if isinstance(inner, nn.Module) else net
    return found.module if isinstance(found, DistributedDataParallel) else found


def _spoken(outputs: Any) -> Tensor:
    found = spoken_output(outputs)
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
                outputs = net(in_type_of(net, images))
        except Exception as error:  # the user's code may fail in any way
            raise InputError(
                f"the {name} does not take images of shape {tuple(images.shape[1:])}: {told(error)}; give one that does"
            ) from error
        found.append(spoken_output(outputs))
    first, second = found
    return first is not None and second is not None and first.shape == second.shape and len(first) == len(images)
