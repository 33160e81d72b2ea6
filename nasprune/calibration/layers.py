"""How a convolution or linear layer reads its input: as rows of features, one weight matrix for each of its groups.

`layer(x)` equals `einsum("rgf,gfo->rgo", patches(layer, x), weight_matrix(layer))` plus the bias, for every
convolution, transposed convolution and linear layer. Rows run over items and output positions, features over the input
channels of a group and the positions of its kernel, both in the order of the layer's own weight.

A class with a `forward` of its own may pad its input or scale its weight first, which the layer's attributes do not
tell; it is no layer here, but counts as code that calls a convolution as a function.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from nasprune.calibration.products import add_products, mirror
from nasprune.errors import InputError

Layer = _ConvNd | nn.Linear
OWN = (nn.modules.conv.__name__, nn.modules.linear.__name__)


def is_layer(module: nn.Module) -> bool:
    """Whether `patches` knows how the module reads its input: as torch's own convolutions and linear layers do."""
    if not isinstance(module, _ConvNd | nn.Linear):
        return False
    steps = (getattr(type(module), name, None) for name in ("forward", "_conv_forward"))
    return all(step is None or step.__module__ in OWN for step in steps)


def weight_matrix(module: nn.Module) -> Tensor:
    """The layer's weight as (groups, features, outputs), `outputs` being those of one group; a view where possible."""
    layer = _checked(module)
    if isinstance(layer, nn.Linear):
        return layer.weight.t().unsqueeze(0)
    weight, groups = layer.weight, layer.groups
    if isinstance(layer, _ConvTransposeNd):
        split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        return split.transpose(2, 3).reshape(groups, -1, weight.shape[1])
    return weight.reshape(groups, weight.shape[0] // groups, -1).transpose(1, 2)


def as_weight(module: nn.Module, matrix: Tensor) -> Tensor:
    """The inverse of `weight_matrix`: (groups, features, outputs) in the shape of the layer's weight."""
    layer = _checked(module)
    if isinstance(layer, nn.Linear):
        return matrix[0].t()
    weight, groups = layer.weight, layer.groups
    if isinstance(layer, _ConvTransposeNd):
        split = matrix.reshape(groups, weight.shape[0] // groups, -1, weight.shape[1]).transpose(2, 3)
        return split.reshape(weight.shape)
    return matrix.transpose(1, 2).reshape(weight.shape)


def patches(module: nn.Module, x: Tensor, rows: Tensor | None = None) -> Tensor:
    """What the layer multiplies with its weights, (rows, groups, features).

    Args:
        module: a convolution or transposed convolution of one to three dimensions, or a linear layer.
        x: the layer's input; for a linear layer with any leading axes, for a convolution with or without a batch axis.
        rows: integers (n,), which rows to make; all by default. Rows count items first, then output positions.

    Raises:
        InputError: the module is none of these, or `x` does not fit it.
    """
    layer = _checked(module)
    if isinstance(layer, nn.Linear):
        if x.shape[-1] != layer.in_features:
            raise InputError(f"the layer reads {layer.in_features} features, got an input of shape {tuple(x.shape)}")
        flat = x.reshape(-1, 1, layer.in_features)
        return flat if rows is None else flat[rows]
    if rows is not None:
        return next(patches_by(layer, x, rows, max(len(rows), 1)), x.new_empty(0, *weight_matrix(layer).shape[:2]))
    windows, spatial = _windows(layer, x), len(layer.kernel_size)
    count, out = windows.shape[0], windows.shape[2 : 2 + spatial]
    return windows.movedim(1, 1 + spatial).reshape(count * prod(out), layer.groups, -1)


def patches_by(module: nn.Module, x: Tensor, rows: Tensor, size: int) -> Iterator[Tensor]:
    """`patches(module, x, rows)`, `size` rows at a time: what all of them need is done once."""
    layer, rows = _checked(module), rows.to(x.device)
    if isinstance(layer, nn.Linear):
        flat = patches(layer, x)
        yield from (flat[chosen] for chosen in torch.split(rows, size))
        return
    filled, steps, flipped = _filled(layer, x)
    places = [torch.arange(k, device=x.device) * d for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    kernel = torch.zeros(1, dtype=torch.long, device=x.device)
    for axis, place in enumerate(places):
        kernel = (kernel[:, None] * filled.shape[2 + axis] + (place.flip(0) if flipped else place)).reshape(-1)
    out = [_positions(layer, axis, filled.shape[2 + axis], steps[axis]) for axis in range(len(places))]
    positions = filled.flatten(2).mT
    for chosen in torch.split(rows, size):
        item, *corner = torch.unravel_index(chosen, (filled.shape[0], *out))
        first = torch.zeros_like(item)
        for axis, at in enumerate(corner):
            first = first * filled.shape[2 + axis] + at * steps[axis]
        by_channel = positions[item[:, None], first[:, None] + kernel].transpose(1, 2)
        yield by_channel.reshape(len(chosen), layer.groups, -1)


def weight_products(module: nn.Module, x: Tensor, y: Tensor, images: int) -> Tensor:
    """Of each image the sum over its rows of what is read by `y`, a tensor like the layer's output: (n, groups, F, O).

    images: how many there are in `x`; their rows follow each other.
    """
    layer = _checked(module)
    if isinstance(layer, nn.Conv2d) and x.ndim == 4 and len(x) == images:
        read = functional.unfold(_padded(layer, x), layer.kernel_size, layer.dilation, 0, layer.stride)
        read = read.reshape(images, layer.groups, -1, read.shape[2])
        return read @ y.reshape(images, layer.groups, -1, read.shape[3]).transpose(2, 3)
    rows, wanted = (each.reshape(images, -1, *each.shape[1:]) for each in (patches(layer, x), output_rows(layer, y)))
    return torch.einsum("npgf,npgo->ngfo", rows, wanted)


def row_count(module: nn.Module, x: Tensor) -> int:
    """How many rows `patches(module, x)` has: items times output positions."""
    layer = _checked(module)
    if isinstance(layer, nn.Linear):
        return x.numel() // layer.in_features
    windows = _windows(layer, x.to("meta"))
    return int(windows.shape[0] * prod(windows.shape[2 : 2 + len(layer.kernel_size)]))


def output_rows(module: nn.Module, y: Tensor, rows: Tensor | None = None) -> Tensor:
    """The layer's output in the order of `patches`, (rows, groups, outputs of a group); those of `rows` alone."""
    layer = _checked(module)
    if isinstance(layer, nn.Linear):
        return picked_rows(y, rows).unsqueeze(1)
    if y.ndim == len(layer.kernel_size) + 1:
        y = y.unsqueeze(0)
    chosen = picked_rows(y.movedim(1, -1), rows)
    return chosen.reshape(len(chosen), layer.groups, layer.out_channels // layer.groups)


def picked_rows(value: Tensor, rows: Tensor | None) -> Tensor:
    """A tensor (..., channels) as (rows, channels); only those of `rows`, integers (n,), where these are given."""
    if rows is None:
        return value.reshape(-1, value.shape[-1])
    return value[torch.unravel_index(rows.to(value.device), value.shape[:-1])]


@dataclass
class RowSums:
    """Sums over rows (groups, n, F) of features, about the first rows' means against cancellation.

    Products are held in the type of the rows, since those of a wide layer take much memory.
    """

    count: int = 0
    shift: Tensor | None = None
    total: Tensor | float = 0.0
    products: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        self.shift = rows.mean(1, keepdim=True) if self.shift is None else self.shift
        off = rows - self.shift
        self.count += rows.shape[1]
        self.total = self.total + off.sum(1).double()
        if self.products is None:
            self.products = off.new_zeros(len(off), off.shape[2], off.shape[2])
        add_products(self.products, off)

    def covariance(self) -> Tensor:
        """(groups, F, F), float64; there must be rows."""
        assert self.products is not None
        mean = torch.as_tensor(self.total) / self.count
        return mirror(self.products).double().div_(self.count).baddbmm_(mean[:, :, None], mean[:, None, :], alpha=-1)


def _checked(module: nn.Module) -> Layer:
    if not isinstance(module, _ConvNd | nn.Linear) or not is_layer(module):
        raise InputError(f"expected a convolution or a linear layer of torch's own, got a {type(module).__name__}")
    return module


def _windows(layer: _ConvNd, x: Tensor) -> Tensor:
    """A view (n, channels, *output positions, *kernel positions) of the padded input."""
    x, steps, flipped = _filled(layer, x)
    for axis, (kernel, dilation) in enumerate(zip(layer.kernel_size, layer.dilation, strict=True)):
        x = x.unfold(2 + axis, dilation * (kernel - 1) + 1, steps[axis])[..., ::dilation]
    return x.flip(tuple(range(-len(steps), 0))) if flipped else x


def _positions(layer: _ConvNd, axis: int, size: int, step: int) -> int:
    """How many outputs there are along an axis of `size`, padding included."""
    return (size - layer.dilation[axis] * (layer.kernel_size[axis] - 1) - 1) // step + 1


def _filled(layer: _ConvNd, x: Tensor) -> tuple[Tensor, tuple[int, ...], bool]:
    """The input with all that is padded (n, channels, ...), the strides over it, and whether the kernel runs back."""
    spatial = len(layer.kernel_size)
    if x.ndim == spatial + 1:
        x = x.unsqueeze(0)
    if x.ndim != spatial + 2 or x.shape[1] != layer.in_channels:
        raise InputError(
            f"the layer reads {layer.in_channels} channels of {spatial} dimensions, "
            f"got an input of shape {tuple(x.shape)}"
        )
    if isinstance(layer, _ConvTransposeNd):
        return _spread(layer, x), (1,) * spatial, True
    return _padded(layer, x), tuple(layer.stride), False


def _padded(layer: _ConvNd, x: Tensor) -> Tensor:
    if isinstance(layer.padding, str):
        total = [d * (k - 1) for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
        total = total if layer.padding == "same" else [0] * len(total)
        sides = [(size // 2, size - size // 2) for size in total]
    else:
        sides = [(size, size) for size in layer.padding]
    if not any(map(sum, sides)):
        return x
    flat = [size for pair in reversed(sides) for size in pair]
    return functional.pad(x, flat, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)


def _spread(layer: _ConvNd, x: Tensor) -> Tensor:
    """The input on which a transposed convolution acts as a plain one with a flipped kernel."""
    sizes = [(size - 1) * stride + 1 for size, stride in zip(x.shape[2:], layer.stride, strict=True)]
    spread = x.new_zeros(*x.shape[:2], *sizes)
    places: list[slice] = [slice(None), slice(None), *(slice(None, None, stride) for stride in layer.stride)]
    spread[tuple(places)] = x
    flat: list[int] = []
    for axis in reversed(range(len(sizes))):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) - int(layer.padding[axis])
        flat += [reach, reach + layer.output_padding[axis]]
    return functional.pad(spread, flat)
