"""What became of a budget of time: the smaller net measured in turn with the whole one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nasprune.cost import latency
from nasprune.supernet.price.limits import Limit
from nasprune.supernet.report.checks import Check


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of one forward pass.

    before: the whole supernet. after: what was built, measured in turn with it. predicted: `after` by the times of
    single candidates. batch: of the inputs. device: in words.
    """

    before: float
    after: float
    predicted: float
    batch: int
    device: str

    def check(self, limit: Limit) -> Check:
        """Whether the budget is kept as measured, which no prediction can promise."""
        said = (
            f"what was built takes {self.after:.4g} ms for a batch of {self.batch} on {self.device}, predicted were "
            f"{self.predicted:.4g} ms; the whole supernet takes {self.before:.4g} ms"
        )
        over = 1e6 * self.after > limit.number
        if over:
            said += f": more than the budget of {limit}, so try a smaller one, on a device that does nothing else"
        return Check("latency", round(self.after, 6), "warn" if over else "ok", said)


def compared_times(
    whole: nn.Module, small: nn.Module, inputs: tuple[Tensor, ...], own: tuple[Tensor, ...], predicted: int
) -> Latency:
    """Args: inputs: of the whole supernet; own: of what was built. predicted: nanoseconds."""
    if inputs[0].shape == own[0].shape:
        before, after = latency.compare_latency([whole, small], own)
    else:
        before, after = latency.measure_latency(whole, inputs), latency.measure_latency(small, own)
    return Latency(before, after, predicted / 1e6, len(own[0]), _named(own[0].device))


def _named(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    count = torch.get_num_threads()
    return f"{device} with {count} {'thread' if count == 1 else 'threads'}"
