"""A latency budget: times of layers measured on the device, and an aim that is corrected by what built networks take.

The solver works with predicted times. A cut network that was built and proved is measured in alternation with the dense
one; where its time is off by more than 5 % of what was promised, or above it, the predictions are corrected by that
factor and the problem is solved again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from nasprune.common.fields import Source, parse
from nasprune.common.files import content_of, write_all
from nasprune.common.inputs import Inputs
from nasprune.common.records import record_of
from nasprune.cost.budget import Budget
from nasprune.cost.latency import compare_latency, threads_set
from nasprune.cost.runtimes import EAGER
from nasprune.cost.time_cache import device_key, keep_times, known_times
from nasprune.cost.times import Times, times_of
from nasprune.deploy.runtimes import runtime_of
from nasprune.errors import InputError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph
from nasprune.run.request import Request

OFF = 0.05  # how far below the promise a measured time may be, relative to it
MIDDLE = 1 - OFF / 2  # where in that range the search aims
FILE = "times.json"
ROUNDS = 4
SECONDS = 3.0  # that a measurement takes


@dataclass(frozen=True)
class Clocked:
    """What a device takes for the dense network, in seconds, and for its calls."""

    dense: float
    times: Times


@dataclass(frozen=True)
class Measured:
    """What the dense and a cut network took, in seconds; predicted: the cut one's before it was built."""

    dense: float
    cut: float
    predicted: float


@dataclass
class LatencyAim:
    """Where the solver aims so that built networks keep a promise.

    clocked: what the device was measured to take, and runtime by what. seconds: what the solver is told; tried: every
    measurement so far.
    """

    budget: Budget
    clocked: Clocked
    measure: Callable[[nn.Module], tuple[float, float]]
    runtime: str = EAGER.name
    seconds: float = field(init=False)
    tried: list[Measured] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seconds = MIDDLE * self.promised

    @property
    def promised(self) -> float:
        """Seconds that the budget allows."""
        return self.budget.timed(self.clocked.dense).seconds or 0.0

    @property
    def solved(self) -> Budget:
        """The budget that the solver is told."""
        return replace(self.budget, seconds=self.seconds, seconds_share=None)

    @property
    def mark(self) -> Mapping[str, str]:
        """What a record of trials says of a round, so that it can be gone on with."""
        return {"latency:": f"{self.seconds!r}"}

    def resumed(self, mark: Mapping[str, str]) -> None:
        """Takes the aim of a round that was recorded."""
        if "latency:" in mark:
            try:
                self.seconds = float(mark["latency:"])
            except ValueError:
                raise InputError(
                    "a round of the record has a latency that is no number; choose another folder"
                ) from None

    def reached(self, model: nn.Module, predicted: float) -> bool:
        """Measures a built network, and corrects the aim where it misses. Whether it is near enough, or tries end."""
        self.tried.append(Measured(*self.measure(model), predicted))
        used = self.used(self.tried[-1])
        if 1 - OFF <= used <= 1 or len(self.tried) == ROUNDS:
            return True
        self.seconds *= MIDDLE / used
        return False

    def used(self, one: Measured) -> float:
        """How much of the budget a network takes; of a share that of the dense one's time in the same breath."""
        if self.budget.seconds_share is not None:
            return one.cut / one.dense / float(self.budget.seconds_share)
        return one.cut / self.promised

    def keep(self, folder: Path | None) -> None:
        """Writes what was measured into the folder of the run, which is gone on with by it."""
        if folder is not None and not (folder / FILE).exists():
            write_all(folder, {FILE: json.dumps(asdict(self.clocked), indent=1).encode()})

    @property
    def _by(self) -> str:
        names = {"eager": "PyTorch", "compile": "torch.compile"}
        return names.get(self.runtime, self.runtime)

    @property
    def best(self) -> int:
        """The number of the slowest network that keeps the promise, else of the fastest."""
        used = list(map(self.used, self.tried))
        within = [share for share in used if share <= 1]
        return used.index(max(within) if within else min(used))

    @property
    def notes(self) -> list[str]:
        """What came of the promise."""
        one = self.tried[self.best]
        share = self.budget.seconds_share
        text = (
            f"Of the latency {f'{float(share):.0%}' if share is not None else f'{1e3 * self.promised:.4g} ms'} were "
            f"asked for: the cut network takes {1e3 * one.cut:.4g} ms, the dense one {1e3 * one.dense:.4g} ms "
            f"({one.cut / one.dense:.1%}), measured in turn by {self._by}; predicted were "
            f"{1e3 * one.predicted:.4g} ms where the dense one took {1e3 * self.clocked.dense:.4g} ms."
        )
        if self.used(one) > 1:
            text += " No network of the search was measured within it: times here may be unsteady; ask for less."
        elif self.used(one) < 1 - OFF:
            text += (
                f" That is {1 - self.used(one):.0%} less than was allowed, and nothing that was measured came nearer: "
                "times here may be unsteady, or no network lies between. Search again when nothing else runs."
            )
        return [text]


def latency_aim(request: Request, graph: ModelGraph) -> LatencyAim | None:
    """The aim of a search whose budget limits latency, `None` for others. Measures the dense network and its layers."""
    if not request.budget.limits_latency:
        return None
    options = request.options
    runtime = runtime_of(options.runtime)
    runtime.check(request.device)
    part = submodule(request.model, graph.scope)
    inputs = batched(graph.example_inputs, options.batch)
    key = device_key(request.device, options.threads or torch.get_num_threads(), runtime.layers_by)

    def measure(model: nn.Module) -> tuple[float, float]:
        both = [part, submodule(model, graph.scope)]
        dense, cut = compare_latency(both, inputs, threads=options.threads, seconds=SECONDS, runtime=runtime)
        return dense / 1e3, cut / 1e3

    if (before := _before(options.out)) is not None:
        return LatencyAim(request.budget, before, measure, runtime.name)
    with request.phases.phase("timing layers") as step, threads_set(options.threads):
        times, fits = times_of(part, graph, batch=options.batch, known=known_times(key), runtime=runtime, on_step=step)
        keep_times(key, fits)
        dense = compare_latency([part], inputs, seconds=SECONDS, runtime=runtime)[0] / 1e3
    clocked = Clocked(dense, times.filling(1e9 * dense, fused=runtime.fuses))
    return LatencyAim(request.budget, clocked, measure, runtime.name)


def _before(folder: Path | None) -> Clocked | None:
    """What an earlier run that is gone on with has measured."""
    if folder is None or not (folder / FILE).exists():
        return None
    then = "choose another folder, or delete that one"
    text = content_of(folder / FILE, "measured times", then, most=2**26)
    return record_of(Clocked, parse(text, Source(str(folder / FILE), "measured times", then)))


def batched(inputs: Inputs, batch: int) -> Inputs:
    """The inputs of one item, as many times.

    Raises:
        InputError: not all tensors have one item on their first axis.
    """
    if batch == 1:
        return inputs
    if any(not tensor.ndim or len(tensor) != 1 for tensor in inputs.tensors):
        raise InputError(
            f"the latency of {batch} items needs inputs whose first axis counts them, got {inputs}; leave `batch` out"
        )
    return inputs.map(lambda tensor: tensor.repeat(batch, *[1] * (tensor.ndim - 1)))
