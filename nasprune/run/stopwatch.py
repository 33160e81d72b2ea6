"""How a run measures latency: with as many items, threads and by the runtime that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from nasprune.common.inputs import Inputs
from nasprune.cost.latency import Enough, compare_latency
from nasprune.cost.runtimes import EAGER, Runtime
from nasprune.deploy.runtimes import runtime_of
from nasprune.errors import InputError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph
from nasprune.run.request import Request


@dataclass(frozen=True)
class Stopwatch:
    """inputs: of the traced part, as many items as run at once. threads: of the CPU, `None` for torch's own."""

    inputs: Inputs
    runtime: Runtime
    threads: int | None
    scope: str | None

    @classmethod
    def of(cls, request: Request, graph: ModelGraph) -> Stopwatch:
        """Raises InputError where the runtime does not run here, or the inputs cannot be repeated."""
        options = request.options
        runtime = runtime_of(options.runtime)
        runtime.check(request.device)
        return cls(batched(graph.example_inputs, options.batch), runtime, options.threads, graph.scope)

    def __call__(
        self, models: Sequence[nn.Module], *, seconds: float = 1.0, enough: Enough | None = None
    ) -> list[float]:
        """Milliseconds of each model's traced part, as `compare_latency` measures them."""
        parts = [submodule(model, self.scope) for model in models]
        return compare_latency(
            parts, self.inputs, threads=self.threads, seconds=seconds, runtime=self.runtime, enough=enough
        )

    def told(self, dense: nn.Module, cut: nn.Module) -> tuple[list[float], list[str]]:
        """Milliseconds of both for a report, and what should be said: a runtime may refuse what was cut."""
        try:
            return self([dense, cut]), []
        except InputError as error:
            eager = Stopwatch(self.inputs, EAGER, self.threads, self.scope)
            return eager([dense, cut]), [f"Latencies are those of PyTorch, since {self.runtime.name} failed: {error}"]


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
