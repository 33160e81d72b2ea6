"""A latency budget: times of layers measured on the device, and an aim that is corrected by what built networks take.

The solver works with predicted times. A cut network is measured in alternation with the dense one, for as long as it
takes to know on which side of the promise it is; where its time is off by more than 5 % of what was promised, or above
it, the predictions are corrected by that factor and the problem is solved again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from math import exp, log
from pathlib import Path

import torch
from torch import nn

from nasprune.common.fields import Source, parse
from nasprune.common.files import content_of, write_all
from nasprune.common.records import record_of
from nasprune.cost.budget import Budget
from nasprune.cost.intervals import median_interval
from nasprune.cost.latency import Enough, threads_set
from nasprune.cost.runtimes import EAGER
from nasprune.cost.time_cache import BENDS, device_key, keep_bend, keep_times, known_bend, known_times
from nasprune.cost.times import Times, times_of
from nasprune.errors import InputError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph
from nasprune.run.request import Request
from nasprune.run.stopwatch import Stopwatch

OFF = 0.05  # how far below the promise a measured time may be, relative to it
MIDDLE = 1 - OFF / 2  # where in that range the search aims
GOOD = (1 - 0.9 * OFF, 1 - 0.1 * OFF)  # where a network that comes before the search says that the aim is right
NEAR = (0.9, 1.1)  # where it says so of the aim that is corrected by it
FLAT = 0.95  # shares of the dense time above this one do not tell a bend
FINE = 0.03  # a share of the promise that is known so well is known well enough
BUSY = 2.0  # times that the dense network may take of what its layers took when they were timed
FILE = "times.json"
ROUNDS = 4
SECONDS = 1.5  # that a measurement takes at most


@dataclass(frozen=True)
class Measured:
    """What the dense and a cut network took, in seconds; predicted: the cut one's before it was built.

    held: nothing of it is cut, or another limit of the budget allows no more, so that its time says nothing of the aim.
    """

    dense: float
    cut: float
    predicted: float
    held: bool = False


@dataclass(frozen=True)
class Clocked:
    """What a device takes for the dense network, in seconds, and for its calls, which add up to it.

    For a share of the latency the sum may be of calls that ran alone: only their proportions count. bend: a cut network
    of this one takes its predicted share of the dense time to this power, as searches before have seen. what: the
    network, the device and the runtime. known: cut networks that were measured, by the digest of their decision.
    """

    dense: float
    times: Times
    bend: float = 1.0
    what: str = ""
    known: Mapping[str, Measured] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not BENDS[0] <= self.bend <= BENDS[1]:
            raise InputError(f"`bend` must be from {BENDS[0]} to {BENDS[1]}, got {self.bend}")

    def aimed(self, wanted: float) -> float:
        """The predicted seconds of a network that takes the wanted ones."""
        if wanted >= self.dense:
            return wanted
        return float(self.dense * (wanted / self.dense) ** (1 / self.bend))


@dataclass
class LatencyAim:
    """Where the solver aims so that built networks keep a promise.

    clocked: what the device was measured to take, and runtime by what. measure: seconds of the dense and of a cut
    network, until they are enough. learned: told the bend of the result's times. seconds: what the solver is told.
    known: what every network took that was measured, also by the run that is gone on with; tried: those that are
    results of rounds, since `begin`. floor: what the smallest network is predicted to take.
    """

    budget: Budget
    clocked: Clocked
    measure: Callable[[nn.Module, Enough], tuple[float, float]]
    runtime: str = EAGER.name
    learned: Callable[[float], None] = lambda bend: None
    seconds: float = field(init=False)
    known: dict[str, Measured] = field(init=False)
    tried: list[Measured] = field(default_factory=list)
    floor: float = 0.0
    _slow: list[tuple[float, float]] = field(default_factory=list)
    _fast: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seconds = self.clocked.aimed(MIDDLE * self.promised)
        self.known = dict(self.clocked.known)

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

    def resumed(self, mark: Mapping[str, str]) -> bool:
        """Takes the aim of a round that was recorded. Whether there is one."""
        if "latency:" not in mark:
            return False
        try:
            self.seconds = float(mark["latency:"])
        except ValueError:
            raise InputError("a round of the record has a latency that is no number; choose another folder") from None
        return True

    @property
    def lowest(self) -> bool:
        """Whether the smallest network is aimed at."""
        return self.seconds <= self.floor

    def begin(self, least: int) -> None:
        """Rounds over another graph begin; the aim stays. least: nanoseconds predicted of its smallest network."""
        self.floor = (least + 0.5) / 1e9
        self.seconds = max(self.seconds, self.floor)
        for each in (self.tried, self._slow, self._fast):
            each.clear()

    def measured(
        self,
        digest: str,
        predicted: float,
        build: Callable[[], nn.Module | None],
        *,
        whole: bool = False,
        held: bool = False,
    ) -> Measured | None:
        """What the network of a decision takes. Each is built and measured once; `None` where nothing can be built.

        whole: nothing of it is cut, so that it takes what the dense one takes, whatever unsteady times say. held: as of
        `Measured`.
        """
        if digest not in self.known and (model := build()) is not None:
            dense, cut = self.measure(model, self._decided)
            self.known[digest] = Measured(dense, dense if whole else cut, predicted, held)
        return self.known.get(digest)

    def sighted(self, one: Measured) -> bool:
        """Corrects the aim by a network that came before the search; whether it is right now, as far as that tells."""
        return self._corrected(one, *GOOD) or NEAR[0] <= self.used(one) <= NEAR[1]

    def reached(self, one: Measured) -> bool:
        """Whether the result of a round is near enough, or tries end; corrects the aim where it is not."""
        self.tried.append(one)
        over = len(self.tried) == ROUNDS or self._corrected(one, 1 - OFF, 1.0)
        if over:
            self.learned(self._bend(self.tried[self.best]))
        return over

    def _bend(self, one: Measured) -> float:
        """By how much a network bends what is predicted; as before where its time is nearly the dense one's."""
        shares = one.predicted / self.clocked.dense, one.cut / one.dense
        if not all(0 < share < FLAT for share in shares):
            return self.clocked.bend
        return min(max(log(shares[1]) / log(shares[0]), BENDS[0]), BENDS[1])

    def _corrected(self, one: Measured, least: float, most: float) -> bool:
        used = self.used(one)
        if least <= used <= most or (used < least and one.held):
            return True
        side, other = (self._fast, self._slow) if used < MIDDLE else (self._slow, self._fast)
        side[:] = [(self.seconds, used)]
        self.seconds = max(self.floor, _between(*side, *other) if other else self.seconds * MIDDLE / used)
        return False

    def _decided(self, times: Sequence[Sequence[float]]) -> bool:
        """Whether seconds of the dense and of a cut network, in turn, say whether the promise is kept, and how well."""
        used = [self.used(Measured(dense, cut, 0.0)) for dense, cut in zip(*times, strict=True)]
        low, high = median_interval(used)
        if low >= 1 - OFF and high <= 1:
            return True
        missed = high < 1 - OFF or low > 1
        return high - low <= (OFF if missed else FINE)

    def used(self, one: Measured) -> float:
        """How much of the budget a network takes; of a share that of the dense one's time in the same breath."""
        if self.budget.seconds_share is not None:
            return one.cut / one.dense / float(self.budget.seconds_share)
        return one.cut / self.promised

    def keep(self, folder: Path | None) -> None:
        """Writes what was measured into the folder of the run, which is gone on with by it."""
        if folder is not None:
            clocked = replace(self.clocked, known=self.known)
            write_all(folder, {FILE: json.dumps(asdict(clocked), indent=1).encode()})

    def forget(self, folder: Path | None) -> None:
        """Takes that back, as for a budget that is refused."""
        if folder is not None:
            (folder / FILE).unlink(missing_ok=True)

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
        """What came of the promise, where a network was measured."""
        if not self.tried:
            return []
        one = self.tried[self.best]
        share = self.budget.seconds_share
        asked = f"{float(share):.0%}" if share is not None else _ms(self.promised)
        predicted = f"{one.predicted / (self.clocked.dense or 1.0):.1%}" if share is not None else _ms(one.predicted)
        text = (
            f"Of the latency {asked} were asked for: the cut network takes {_ms(one.cut)}, the dense one "
            f"{_ms(one.dense)} ({one.cut / one.dense:.1%}), measured in turn by {self._by}; predicted were "
            f"{predicted}."
        )
        return [text + self._reason(one) + self._busy(one)]

    def told(self, one: Measured) -> str:
        """What a network takes, in words."""
        return f"{_ms(one.cut)}, {one.cut / one.dense:.1%} of the dense network's {_ms(one.dense)}, as measured"

    def _reason(self, one: Measured) -> str:
        """Why a network takes more than was allowed, or far less; "" where it does not."""
        if self.used(one) > 1:
            return " No network of the search was measured within it: times here may be unsteady; ask for less."
        if self.used(one) >= 1 - OFF:
            return ""
        if one.held:
            return (
                " Nothing had to be cut for that." if one.cut == one.dense else " Another limit of the budget decides."
            )
        return (
            f" That is {1 - self.used(one):.0%} less than was allowed, and nothing that was measured came nearer: "
            "times here may be unsteady, or no network lies between. Search again when nothing else runs."
        )

    def _busy(self, one: Measured) -> str:
        """That the dense network takes far longer, or less, than its layers did when they were timed; else ""."""
        times = one.dense / self.clocked.dense if self.clocked.dense and self.runtime == EAGER.name else 1.0
        if 1 / BUSY < times < BUSY:
            return ""
        return (
            f" The dense network took {times:.2g} times as long as its layers when they were timed, so something else "
            "ran at one of these times; search again, in another folder, when nothing else runs."
        )


def _between(one: tuple[float, float], other: tuple[float, float]) -> float:
    """The aim between two, each with how much of the promise was used, one too much and one too little.

    In proportion to the logarithms; where the larger aim gave the faster network, times are unsteady: halfway.
    """
    (low, less), (high, more) = sorted((one, other))
    share = log(MIDDLE / less) / log(more / less) if less < more else 0.5
    return low * exp(share * log(high / low))


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.4g} ms"


def latency_aim(request: Request, graph: ModelGraph) -> LatencyAim | None:
    """The aim of a search whose budget limits latency, `None` for others. Measures the dense network and its layers."""
    if not request.budget.limits_latency:
        return None
    options, stopwatch = request.options, Stopwatch.of(request, graph)
    runtime = stopwatch.runtime
    key = device_key(request.device, options.threads or torch.get_num_threads(), runtime.layers_by)

    def measure(model: nn.Module, enough: Enough) -> tuple[float, float]:
        dense, cut = stopwatch([request.model, model], seconds=SECONDS, enough=enough)
        return dense / 1e3, cut / 1e3

    network = _name(graph, options.batch)

    def learned(bend: float) -> None:
        keep_bend(key, network, bend)

    what = f"{key}, {runtime.name}, {network}"
    if (before := _before(options.out)) is not None and before.what == what:
        return LatencyAim(request.budget, before, measure, runtime.name, learned)
    with request.phases.phase("timing layers") as step, threads_set(options.threads):
        part = submodule(request.model, graph.scope)
        times, table = times_of(part, graph, batch=options.batch, known=known_times(key), runtime=runtime, on_step=step)
        keep_times(key, table)
        if request.budget.seconds is not None or runtime.fuses:
            dense = stopwatch([request.model], seconds=SECONDS, enough=_precise)[0] / 1e3
            times = times.filling(1e9 * dense, fused=runtime.fuses)
    clocked = Clocked(times.dense / 1e9, times, known_bend(key, network), what)
    return LatencyAim(request.budget, clocked, measure, runtime.name, learned)


def _name(graph: ModelGraph, batch: int) -> str:
    """The same for networks of equal layers that are called with inputs of equal shapes."""
    text = f"{sorted(graph.signature.items())}, {graph.example_inputs}, {batch}"
    return sha256(text.encode()).hexdigest()[:16]


def _precise(times: Sequence[Sequence[float]]) -> bool:
    """Whether the seconds of one network say what it takes."""
    low, high = median_interval(times[0])
    return high <= (1 + OFF) * low


def _before(folder: Path | None) -> Clocked | None:
    """What an earlier run in the folder has measured, which may be of another network."""
    if folder is None or not (folder / FILE).exists():
        return None
    then = "choose another folder, or delete that one"
    text = content_of(folder / FILE, "measured times", then, most=2**26)
    return record_of(Clocked, parse(text, Source(str(folder / FILE), "measured times", then)))
