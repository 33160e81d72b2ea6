"""What is wrong with the arguments of a search, said before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nasprune.budget import EXAMPLES, Budget
from nasprune.data import DataSplits
from nasprune.data.batches import batches
from nasprune.errors import BudgetError, InputError


def parse_budget(budget: object) -> Budget:
    """Raises BudgetError for what is no budget, and for one that the search cannot hold."""
    if not isinstance(budget, str | Budget):
        raise BudgetError(f"expected a budget such as {EXAMPLES}, got {budget!r}; write it as text")
    goal = Budget.parse(budget) if isinstance(budget, str) else budget
    if goal.seconds is not None:
        raise BudgetError(
            f"the budget {str(goal)!r} limits latency, which the search cannot hold yet; limit FLOPs or parameters"
        )
    return goal


def check_limits(trials: int | None, time_limit: float | None) -> None:
    """Raises InputError unless both are above zero where they are given."""
    if trials is not None and trials < 1:
        raise InputError(f"`trials` must be at least 1, got {trials}")
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"`time_limit` must be above 0 seconds, got {time_limit}")


def check_weights(model: nn.Module) -> None:
    """Raises InputError where a parameter holds what is no number."""
    for name, value in model.named_parameters():
        if not bool(value.detach().isfinite().all()):
            raise InputError(f"the model's {name!r} holds NaN or infinite values; give weights that are finite")


def check_images(data: DataSplits, inputs: Sequence[Tensor]) -> None:
    """Raises InputError unless the model takes images alone, and those of the data have the example's shape."""
    if len(inputs) != 1:
        raise InputError(f"data gives images alone, the model takes {len(inputs)} inputs; search without data")
    images, _ = next(batches(data.calibration, 1))
    expected, got = tuple(inputs[0].shape[1:]), tuple(images.shape[1:])
    if expected != got:
        raise InputError(
            f"the example input has items of shape {expected}, data {data.name!r} gives {got}; give example inputs of "
            "the shape of the data, or other data"
        )
