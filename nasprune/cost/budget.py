"""What a network costs, and what the user asks for: "2GFLOPs", "60%", "5MParams", "8ms", "20%NNZ", or several.

NNZ are the numbers of all parameters that are not zero; NNZFLOPs are multiply-adds but for those with a weight that is
held at zero. Networks run none of these savings by themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from nasprune.cost.units import scaled, short
from nasprune.errors import BudgetError

EXAMPLES = "2GFLOPs, 300MMACs, 60%, 5MParams, 8ms, 60% latency, 20%NNZ, or several: 2GFLOPs,20MParams"
_AMOUNT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][0-9]+)?)\s*([KMGT]?)(FLOPS?|MACS?|PARAMS?)\s*", re.IGNORECASE)
_SHARE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*%\s*(?:of\s+)?(FLOPS?|MACS?|PARAMS?)?\s*", re.IGNORECASE)
_TIME = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*(us|ms|s)\s*", re.IGNORECASE)
_TIME_SHARE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*%\s*(?:of\s+)?(?:the\s+)?(?:latency|time)\s*", re.IGNORECASE)
_NONZERO = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][0-9]+)?)\s*([KMGT]?)(NNZ(?:FLOPS)?)\s*", re.IGNORECASE)
_NONZERO_SHARE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*%\s*(?:of\s+)?(?:the\s+)?(NNZ(?:FLOPS)?)\s*", re.IGNORECASE)
_NONZEROS = {"NNZ": "nonzeros", "NNZFLOPS": "nonzero_flops"}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Cost:
    """What a network costs to run and to store: exact integers at batch 1.

    flops: multiply-adds, as `fvcore.nn.FlopCountAnalysis` counts them, with the operators of docs/counting.md added.
    params: elements of all parameters.
    activations: output elements of convolutions and dot products, as `fvcore.nn.ActivationCountAnalysis` counts them.
    nanoseconds: as predicted from measured layers, where latency is part of the budget, else 0.
    """

    flops: int
    params: int
    activations: int
    nanoseconds: int = 0

    def __str__(self) -> str:
        return f"{short(self.flops, 'FLOPs')}, {short(self.params, 'params')}"


@dataclass(frozen=True)
class Budget:
    """Upper limits, inclusive; `None` is no limit.

    `flops` and `params` are absolute counts. `flops_share` and `params_share` are exact shares of the dense model in
    (0, 1]; `resolve` turns them into counts. `seconds` is a latency; `seconds_share` its share
    of the dense model's, which `timed` turns into seconds. `nonzeros` are numbers of all parameters that are not
    zero, `nonzero_flops` multiply-adds with weights that are not held at zero; `zeros_from` resolves their shares.
    """

    flops: int | None = None
    params: int | None = None
    flops_share: Fraction | None = None
    params_share: Fraction | None = None
    seconds: float | None = None
    seconds_share: Fraction | None = None
    nonzeros: int | None = None
    nonzeros_share: Fraction | None = None
    nonzero_flops: int | None = None
    nonzero_flops_share: Fraction | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("flops", self.flops),
            ("params", self.params),
            ("seconds", self.seconds),
            ("NNZ", self.nonzeros),
            ("NNZFLOPs", self.nonzero_flops),
        ):
            if value is not None and value <= 0:
                raise BudgetError(f"a budget must be above zero, got {name}={value}; examples: {EXAMPLES}")
        for name, share in (
            ("flops", self.flops_share),
            ("params", self.params_share),
            ("latency", self.seconds_share),
            ("NNZ", self.nonzeros_share),
            ("NNZFLOPs", self.nonzero_flops_share),
        ):
            if share is not None and not 0 < share <= 1:
                raise BudgetError(f"a share must be in (0%, 100%], got {float(100 * share):g}% of {name}")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Reads "2GFLOPs", "60%", "5MParams", "8ms", "20%NNZ", "25%NNZFLOPs" or several joined by commas.

        >>> Budget.parse("2GMACs, 5MParams") == Budget(flops=2 * 10**9, params=5 * 10**6)
        True

        Raises:
            BudgetError: a part does not parse, or two parts limit the same quantity.
        """
        limits: dict[str, int | float | Fraction] = {}
        for part in text.split(","):
            name, value = _parse_part(part, text)
            quantity = name.removesuffix("_share")
            if any(known.removesuffix("_share") == quantity for known in limits):
                raise BudgetError(f"the budget {text!r} limits {quantity} twice; give one limit for each quantity")
            limits[name] = value
        goal = cls(**limits)  # type: ignore[arg-type]
        if goal.weighs_zeros and (goal.nonzeros is not None or goal.nonzeros_share is not None):
            raise BudgetError(f"the budget {text!r} limits NNZ and NNZFLOPs; give one of the two")
        return goal

    def resolve(self, dense: Cost) -> Budget:
        """The same budget with shares turned into counts of the `dense` model, rounded down.

        Raises:
            BudgetError: a share of nothing is asked for.
        """
        flops, params = self.flops, self.params
        if self.flops_share is not None and not dense.flops:
            raise BudgetError(
                f"the budget {str(self)!r} is a share of FLOPs, and nothing that the model runs counts any; "
                "give a share of the parameters, such as 50%Params"
            )
        if self.params_share is not None and not dense.params:
            raise BudgetError(
                f"the budget {str(self)!r} is a share of parameters, and the model has none; give one of FLOPs"
            )
        if self.flops_share is not None:
            flops = int(self.flops_share * dense.flops)
        if self.params_share is not None:
            params = int(self.params_share * dense.params)
        return replace(self, flops=flops, params=params, flops_share=None, params_share=None)

    @property
    def limits_zeros(self) -> bool:
        """Whether it limits what is not zero."""
        return any(value is not None for value in (self.nonzeros, self.nonzeros_share)) or self.weighs_zeros

    @property
    def weighs_zeros(self) -> bool:
        """Whether weights that are not zero count by their multiply-adds."""
        return self.nonzero_flops is not None or self.nonzero_flops_share is not None

    @property
    def limits_structure(self) -> bool:
        """Whether it limits what widths and blocks cost."""
        given = (self.flops, self.params, self.flops_share, self.params_share)
        return self.limits_latency or any(value is not None for value in given)

    def zeros_from(self, nonzeros: int, flops: int) -> int:
        """How many numbers, or multiply-adds where `weighs_zeros`, are left to what is not zero.

        nonzeros: parameters of the dense model that are not zero; flops: its multiply-adds.
        """
        if self.weighs_zeros:
            share = self.nonzero_flops_share
            return int(share * flops) if share is not None else int(self.nonzero_flops or 0)
        share = self.nonzeros_share
        return int(share * nonzeros) if share is not None else int(self.nonzeros or 0)

    @property
    def limits_latency(self) -> bool:
        return self.seconds is not None or self.seconds_share is not None

    def timed(self, dense_seconds: float) -> Budget:
        """The same budget with the share of a latency turned into seconds of the dense model's."""
        if self.seconds_share is None:
            return self
        return replace(self, seconds=float(self.seconds_share) * dense_seconds, seconds_share=None)

    @property
    def limits(self) -> tuple[int | None, int | None, int | None]:
        """Resolved limits of FLOPs, parameters and predicted nanoseconds; `None` is no limit."""
        return self.flops, self.params, int(1e9 * self.seconds) if self.seconds is not None else None

    @property
    def limited(self) -> dict[str, int]:
        """The quantities of a `Cost` that are limited, and their resolved limits."""
        named = zip(("flops", "params", "nanoseconds"), self.limits, strict=True)
        return {quantity: limit for quantity, limit in named if limit is not None}

    def allows(self, cost: Cost) -> bool:
        """Whether predicted `cost` keeps the resolved limits."""
        return all(getattr(cost, quantity) <= limit for quantity, limit in self.limited.items())

    def fill(self, cost: Cost) -> float:
        """The share of the tightest resolved limit that `cost` uses: above 1 is over budget."""
        return max((getattr(cost, quantity) / limit for quantity, limit in self.limited.items()), default=0.0)

    def __str__(self) -> str:
        parts = [
            short(self.flops, "FLOPs") if self.flops is not None else "",
            f"{float(100 * self.flops_share):g}% of FLOPs" if self.flops_share is not None else "",
            short(self.params, "params") if self.params is not None else "",
            f"{float(100 * self.params_share):g}% of params" if self.params_share is not None else "",
            f"{1e3 * self.seconds:g} ms" if self.seconds is not None else "",
            f"{float(100 * self.seconds_share):g}% of latency" if self.seconds_share is not None else "",
            short(self.nonzeros, "NNZ") if self.nonzeros is not None else "",
            f"{float(100 * self.nonzeros_share):g}% of NNZ" if self.nonzeros_share is not None else "",
            short(self.nonzero_flops, "NNZFLOPs") if self.nonzero_flops is not None else "",
            f"{float(100 * self.nonzero_flops_share):g}% of NNZFLOPs" if self.nonzero_flops_share is not None else "",
        ]
        return ", ".join(part for part in parts if part)


def parse_budget(budget: object, *, latency: bool = False, zeros: bool = False) -> Budget:
    """The budget. latency, zeros: whether it may limit these, as only `search` does.

    Raises:
        BudgetError: it is none, or limits what it may not.
    """
    if not isinstance(budget, str | Budget):
        raise BudgetError(f"expected a budget such as {EXAMPLES}, got {budget!r}; write it as text")
    goal = Budget.parse(budget) if isinstance(budget, str) else budget
    if goal.limits_latency and not latency:
        raise BudgetError(f"the budget {str(goal)!r} limits latency, which only a search of widths and blocks can hold")
    if goal.limits_zeros and not zeros:
        raise BudgetError(f"the budget {str(goal)!r} limits what is not zero, which only a search can hold")
    return goal


def _parse_part(part: str, text: str) -> tuple[str, int | float | Fraction]:
    if match := _AMOUNT.fullmatch(part):
        quantity = "params" if match[3].upper().startswith("PARAM") else "flops"
        return quantity, scaled(match[1], match[2])
    if match := _SHARE.fullmatch(part):
        quantity = "params" if (match[2] or "").upper().startswith("PARAM") else "flops"
        return f"{quantity}_share", Fraction(match[1]) / 100
    if match := _NONZERO.fullmatch(part):
        return _NONZEROS[match[3].upper()], scaled(match[1], match[2])
    if match := _NONZERO_SHARE.fullmatch(part):
        return f"{_NONZEROS[match[2].upper()]}_share", Fraction(match[1]) / 100
    if match := _TIME_SHARE.fullmatch(part):
        return "seconds_share", Fraction(match[1]) / 100
    if match := _TIME.fullmatch(part):
        return "seconds", float(match[1]) * _SECONDS[match[2].lower()]
    raise BudgetError(f"the budget {text!r} does not parse at {part.strip()!r}; write for example {EXAMPLES}")
