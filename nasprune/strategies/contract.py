"""What a strategy is, and what it works with: the contract of plugins in `plugins/strategies/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from nasprune.cut.plan import PrunePlan
from nasprune.graph.model import CoupledGroup


class LiveSlots(Protocol):
    """A tensor of a network in training, as far as the units of one group own it.

    role: as of an `AxisSlice`. is_norm: whether it is the weight of a batch norm. is_trained: whether a parameter.
    """

    @property
    def role(self) -> str: ...

    @property
    def is_norm(self) -> bool: ...

    @property
    def tensor(self) -> Tensor:
        """The whole tensor, live."""

    @property
    def is_trained(self) -> bool: ...

    def read(self) -> Tensor:
        """A copy (width, k); row i is unit i's, filled up with zeros where it has fewer than k numbers."""

    def write(self, rows: Tensor) -> None:
        """Puts rows (width, k) back into the tensor; what `read` filled up is left out."""


class LiveWeight(Protocol):
    """The weight of a convolution or linear layer in training, whose elements may be zero one by one.

    What is given to it acts until the strategy is finished. name: within the traced part. tensor: live.
    """

    @property
    def name(self) -> str: ...

    @property
    def tensor(self) -> nn.Parameter: ...

    def through(self, change: Callable[[Tensor, bool], Tensor]) -> None:
        """The layer computes with `change(weight, training)`, of the same shape, in the place of the weight.

        This and `noisy` are for strategies that say `hooks = True`.
        """

    def noisy(self, variance: Callable[[], Tensor], noise: Callable[[torch.Size], Tensor]) -> None:
        """In training outputs are drawn as with weights of this variance, of the weight's shape, anew for every item.

        noise: numbers from a standard normal distribution, of a shape.
        Kingma, Salimans, Welling 2015, arXiv:1506.02557: the noise of outputs is drawn, not that of weights.
        """

    def pull(self, gradient: Callable[[], Tensor]) -> None:
        """Adds to every gradient of the weight, before the optimizer takes it."""


class LiveScale(Protocol):
    """A batch norm or a layer, behind which factors scale what it gives: (width,) for its units, or one of all, ()."""

    @property
    def module(self) -> nn.Module: ...

    def scaled(self, output: Tensor, factors: Tensor) -> Tensor:
        """The module's output, scaled."""

    def merge(self, factors: Tensor) -> None:
        """Scales weight and bias of the module, which then gives what `scaled` gave."""


class LiveBlock(Protocol):
    """A removable block of a network in training: its path, and the scales at the ends of its branches."""

    @property
    def name(self) -> str: ...

    @property
    def scales(self) -> Sequence[LiveScale]: ...


class StrategyTask(Protocol):
    """What a strategy works with. The network is live: an optimizer takes steps on it."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def groups(self) -> Sequence[CoupledGroup]:
        """Those that may be narrowed."""

    @property
    def seed(self) -> int: ...

    def slots(self, group: CoupledGroup) -> Sequence[LiveSlots]:
        """Every tensor that the group's units own a part of."""

    def scales(self, group: CoupledGroup) -> Sequence[LiveScale]:
        """Where the group's channels can be scaled; none where their order is not that of any module."""

    @property
    def blocks(self) -> Sequence[LiveBlock]:
        """Those that may be dropped, and whose branches end with a batch norm or a layer."""

    def within(self, alive: Mapping[str, int], drop: Sequence[str] = ()) -> bool:
        """Whether the network is within the budget, where each group has about as many units left as `alive` says."""

    def averaged(self, value: Tensor) -> Tensor:
        """The mean of a strategy's own gradient over the processes that train together; itself where there is one."""

    def magnitudes(self) -> Mapping[str, Tensor]:
        """Group -> the norm (width,) of each unit's rows in the tensors that make its channels, now."""

    def prices(self, alive: Mapping[str, int]) -> Mapping[str, float]:
        """Group -> what one of its units costs where each group has about as many left as `alive` says.

        In FLOPs, or in parameters where the budget has no FLOPs.
        """

    def plan(
        self,
        scores: Mapping[str, Tensor],
        *,
        spread: str = "uniform",
        share: float = 1.0,
        least: float = float("-inf"),
        drop: Sequence[str] = (),
    ) -> PrunePlan:
        """The plan within budget that keeps the units of the highest scores.

        spread: "uniform" for one ratio in all groups, "global" for one threshold over the scores of all groups.
        Groups that `scores` leaves out, with "global", keep theirs as long as the budget allows it.

        share: how much of the way from the whole network to the budget, in [0, 1].
        least: with "global", units with scores not above it go even where the budget would keep them.
        drop: blocks that go.
        """

    def zero(self, plan: PrunePlan, roles: Sequence[str] = ("out", "scale")) -> None:
        """Sets to zero what the units that the plan drops own of tensors in these roles, and the ends of its blocks."""

    def gate(self, group: CoupledGroup, draw: Callable[[int, bool], Tensor]) -> None:
        """What layers read of the group's units is multiplied by `draw(items, training)`, (items, width) or (1, width).

        It acts until the strategy is finished; all readers of a pass get the same factors. For strategies that say
        `hooks = True`.
        """

    def watch(self, seen: Callable[[tuple[Tensor, ...]], None]) -> None:
        """`seen` is called with the inputs of every pass of the network in training, until the finish."""

    def release(self) -> None:
        """Takes away gates, watchers, and what was given to weights; it is done at the finish in any case."""

    def fold(self, group: CoupledGroup, factors: Tensor) -> None:
        """Multiplies the weights of all layers that read the group's units by factors (width,)."""

    @property
    def sparse(self) -> bool:
        """Whether the budget limits how many numbers are not zero, and not what widths cost."""

    @property
    def density(self) -> float:
        """The share of elements of `weights` that may stay, in [0, 1], where the budget limits them."""

    @property
    def weights(self) -> Sequence[LiveWeight]: ...

    def masks(self, scores: Mapping[str, Tensor], *, share: float = 1.0) -> Mapping[str, Tensor]:
        """Name of a weight -> boolean of its shape, `True` for the highest scores over all weights within the budget.

        share: how much of the way from all elements to the budget, in [0, 1].
        """

    def mask(self, masks: Mapping[str, Tensor]) -> PrunePlan:
        """Sets weights to zero where their mask says so; the plan that holds them there."""


class Strategy(ABC):
    """A way to train a network so that it can be cut. Further keyword arguments of the constructor are its options.

    It works after the optimizer's steps, so that it goes with any optimizer and any loop; a penalty is a proximal step.
    takes: "structure" where it keeps budgets of what widths cost, "zeros" where it keeps those of numbers not zero.
    hooks: whether it changes what layers compute, by gates on groups or by other weights; what is read where no hook
    sees it then stays whole. notes: what the user should read in the end, in sentences.
    """

    takes: ClassVar[tuple[str, ...]] = ("structure",)
    hooks: ClassVar[bool] = False
    notes: tuple[str, ...] = ()

    @abstractmethod
    def __init__(self, task: StrategyTask) -> None: ...

    @abstractmethod
    def step(self, progress: float, rate: float) -> None:
        """Changes the weights after a step. progress: share of steps that are done, in (0, 1]; rate: of learning."""

    @abstractmethod
    def finish(self) -> PrunePlan:
        """Makes the weights ready for the cut, and says what to cut."""
