"""Numbers that tell networks apart without training: what ReLUs say of a batch, and how much flows through the weights.

NASWOT: Mellor et al. 2021, arXiv:2006.04647. SynFlow: Tanaka et al. 2020, arXiv:2006.05467.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from nasprune.base import OpTask
from nasprune.common.outputs import tensors_of
from nasprune.errors import InputError
from nasprune.supernet.score.paths import SinglePath
from nasprune.supernet.score.scoring import batch_statistics, seeded, weights_of

log = logging.getLogger(__name__)

FEWEST = 8
RIDGE = 1e-6
STEP = 1e-4
"""Of all weights, as a share, to see how the flow grows."""
SIDE = 8
ATEN = torch.ops.aten
AT_ZERO = (ATEN.relu.default, ATEN.relu_.default, ATEN.hardtanh.default, ATEN.hardtanh_.default)


def unlabelled_images(task: OpTask, count: int) -> Tensor:
    """Inputs (n, ...) to look at, n at most `count`, on the net's device: validation images where there are any.

    Without data they are the supernet's example inputs if there are eight of them at least or if they are no floating
    point numbers, and standard normal ones otherwise.
    """
    if task.validation:
        images = torch.cat([images for images, _ in task.validation[: -(-count // len(task.validation[0][0]))]])
        return images[:count].to(task.example.device)
    if len(task.example) >= FEWEST or not task.example.is_floating_point():
        return task.example[:count]
    generator = torch.Generator().manual_seed(task.seed)
    noise = torch.randn(count, *task.example.shape[1:], generator=generator, device="cpu")
    return noise.to(task.example.device, task.example.dtype)


class ReluCodes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums up K = x x^T + (1 - x)(1 - x)^T over the ReLUs that run inside.

    x (images, units) in {0, 1} says which units are active. kernel: K (images, images), float64. seen: number of ReLUs;
    only ReLU and ReLU6, as modules or as functions.
    """

    def __init__(self, images: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernel = torch.zeros(images, images, dtype=torch.float64, device="cpu")
        self.seen = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Else torch imports its compiler, which takes seconds, to keep it out of here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in AT_ZERO and len(output) == len(self.kernel):
            active = _active(output)
            counts = active.sum(dim=1)
            equal = 2 * (active @ active.T) + active.shape[1] - counts[:, None] - counts[None, :]
            self.kernel += equal.double().cpu()
            self.seen += 1
        return output

    @property
    def log_det(self) -> float:
        """log det K: images that the net can tell apart give a large determinant.

        A millionth of the mean diagonal is added, so that images of equal codes give a finite number; 0 without ReLUs.
        """
        if not self.seen:
            return 0.0
        ridge = (
            RIDGE
            * float(self.kernel.diagonal().mean())
            * torch.eye(len(self.kernel), dtype=torch.float64, device="cpu")
        )
        return float(torch.linalg.slogdet(self.kernel + ridge).logabsdet)


def _active(output: Tensor) -> Tensor:
    """Which units are above zero, (images, units) in {0, 1}, in the order in which they lie in memory."""
    if output.ndim == 4 and output.is_contiguous(memory_format=torch.channels_last):
        output = output.permute(0, 2, 3, 1)
    flat = output.flatten(1)
    return torch.gt(flat, 0, out=torch.empty(flat.shape, device=flat.device))


def flow_of_ones(task: OpTask, inputs: Tensor | None = None) -> Tensor:
    """The sum of all that the net gives for an input of ones: inside `positive_weights` that is SynFlow's R.

    inputs: of ones (1, ...), like the example's by default; words, and whatever else has a number that only names it,
    are the example's own.

    Raises:
        InputError: the net gives no floating-point tensor.
    """
    outputs = _floats(task.net(_ones(task) if inputs is None else inputs))
    if not outputs:
        raise InputError("the supernet gives no floating-point tensor, so nothing flows; take another scorer")
    return torch.stack([output.sum() for output in outputs]).sum()


def _ones(task: OpTask) -> Tensor:
    example = task.example[:1]
    return torch.ones_like(example, dtype=torch.float64) if example.is_floating_point() else example


@contextmanager
def positive_weights(task: OpTask, factor: float = 1.0) -> Iterator[None]:
    """Inside, weights are `factor` times their absolute values in float64, and batch norms do nothing.

    Architecture weights stay what they are; buffers are float64 too. Nothing stays behind.
    """
    known = {id(parameter) for parameter in weights_of(task)}
    parameters = [p for p in task.net.parameters() if p.is_floating_point()]
    buffers = [buffer for buffer in task.net.buffers() if buffer.is_floating_point()]
    values = [tensor.data for tensor in (*parameters, *buffers)]
    before = [(vars(module), vars(module).get("forward")) for module in task.net.modules()]
    try:
        for parameter in parameters:
            weight = id(parameter) in known or not parameter.requires_grad
            doubled = parameter.data.double()
            parameter.data = doubled.abs() * factor if weight else doubled
        for buffer in buffers:
            buffer.data = buffer.data.double()
        for module in task.net.modules():
            if isinstance(module, _BatchNorm):
                vars(module)["forward"] = _same
            elif isinstance(module, nn.Conv2d) and _many_groups(module):
                vars(module)["forward"] = partial(_grouped, module)
        yield
    finally:
        for tensor, value in zip((*parameters, *buffers), values, strict=True):
            tensor.data = value
        for attributes, forward in before:
            attributes.pop("forward", None)
            if forward is not None:
                attributes["forward"] = forward


def _many_groups(module: nn.Conv2d) -> bool:
    plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return plain and module.groups > 1 and type(module).forward is nn.Conv2d.forward


def _grouped(module: nn.Conv2d, inputs: Tensor) -> Tensor:
    """The convolution as one product of matrices, since torch does each group for itself in float64."""
    padding: Any = module.padding
    sizes = zip(inputs.shape[2:], padding, module.dilation, module.kernel_size, module.stride, strict=True)
    height, width = ((size + 2 * pad - dil * (side - 1) - 1) // step + 1 for size, pad, dil, side, step in sizes)
    patches = nn.functional.unfold(inputs, module.kernel_size, module.dilation, padding, module.stride)
    weights = module.weight.reshape(module.groups, module.out_channels // module.groups, -1)
    patches = patches.reshape(len(inputs), module.groups, weights.shape[2], -1)
    given = (weights @ patches).reshape(len(inputs), module.out_channels, height, width)
    return given if module.bias is None else given + module.bias[:, None, None]


def _same(inputs: Tensor) -> Tensor:
    return inputs


def codes_along(task: OpTask, paths: Sequence[SinglePath], inputs: Tensor) -> list[float]:
    """NASWOT of each path: log det of the kernel of its ReLU codes on inputs (n, ...); batch norms go by the batch.

    Images on the CPU lie with their channels last, where pools and convolutions are faster, if a path can read them.
    """
    found = []
    with torch.no_grad(), batch_statistics(task.net):
        for path in paths:
            found.append(_codes(task, path, inputs))
            if len(found) % 50 == 0:
                log.info("%d of %d paths have run on %d inputs", len(found), len(paths), len(inputs))
    return found


def _codes(task: OpTask, path: SinglePath, inputs: Tensor) -> float:
    if inputs.ndim == 4 and inputs.device.type == "cpu":
        with suppress(RuntimeError):  # of `view`, for one, which needs its elements in order
            return _codes_of(task, path, inputs.contiguous(memory_format=torch.channels_last))
    return _codes_of(task, path, inputs)


def _codes_of(task: OpTask, path: SinglePath, inputs: Tensor) -> float:
    codes = ReluCodes(len(inputs))
    with task.on_path(path), seeded(task.seed, task.example.device), codes:
        task.net(inputs)
    return codes.log_det


def flows_along(task: OpTask, paths: Sequence[SinglePath]) -> list[float]:
    """SynFlow of each path: the sum of |w dR/dw| over all weights, R the flow of ones.

    All of R's factors are positive, so that is its slope where all weights grow alike, which two forward passes tell.
    Images are halved while their sides are above eight and the net runs, since ones look the same everywhere.

    Raises:
        InputError: the flow is too large for float64, or there is none.
    """
    inputs = _smaller(task, paths[0])
    above, below = (_flows(task, paths, inputs, 1 + sign * STEP) for sign in (1, -1))
    return [(one - other) / (2 * STEP) for one, other in zip(above, below, strict=True)]


def _flows(task: OpTask, paths: Sequence[SinglePath], inputs: Tensor, factor: float) -> list[float]:
    found = []
    with positive_weights(task, factor), torch.no_grad():
        for path in paths:
            with seeded(task.seed, task.example.device), task.on_path(path):
                found.append(float(flow_of_ones(task, inputs)))
    if not all(map(math.isfinite, found)):
        raise InputError("the flow through the supernet is too large for float64; take another scorer")
    return found


def _smaller(task: OpTask, path: SinglePath) -> Tensor:
    inputs = _ones(task)
    if not inputs.is_floating_point() or inputs.ndim != 4:
        return inputs
    with task.on_path(path), positive_weights(task), torch.no_grad(), seeded(task.seed, task.example.device):
        while min(inputs.shape[2:]) >= 2 * SIDE:
            half = inputs[:, :, : inputs.shape[2] // 2, : inputs.shape[3] // 2]
            try:
                task.net(half)
            except Exception:  # a module's own code may raise anything
                break
            inputs = half
    return inputs


def _floats(outputs: object) -> list[Tensor]:
    return [value for value in tensors_of(outputs) if value.is_floating_point()]
