from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from nasprune.calibration.layers import (
    RowSums,
    is_layer,
    output_rows,
    patches,
    patches_by,
    row_count,
    weight_matrix,
    weight_products,
)
from nasprune.errors import InputError

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@st.composite
def layers(draw):
    """A convolution of any kind and the shape of an input it takes."""
    dims, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    channels = [groups * draw(st.integers(1, 3)) for _ in range(2)]
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(dims))  # noqa: E731
    kernel, stride, dilation = each(1, 3), each(1, 3), each(1, 2)
    size = each(5, 7)
    options = {"stride": stride, "dilation": dilation, "groups": groups, "bias": draw(st.booleans())}
    if draw(st.booleans()):
        extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        layer = TRANSPOSED[dims](*channels, kernel, padding=each(0, 2), output_padding=extra, **options)
    else:
        mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
        padding = draw(st.sampled_from(["same", "valid", "numbers"]))
        if padding == "same":
            options["stride"] = 1
        padding = each(0, 2) if padding == "numbers" else padding
        layer = CONVS[dims](*channels, kernel, padding=padding, padding_mode=mode, **options)
    batch = (draw(st.integers(1, 2)),) if draw(st.booleans()) else ()
    return layer.double(), (*batch, channels[0], *size)


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@settings(max_examples=120)
@given(layers(), st.integers(0, 2**32))
def test_patches_times_weights_are_the_convolution(case, seed):
    layer, shape = case
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    check(layer, x)


@pytest.mark.parametrize("leading", [(), (4,), (2, 3)])
def test_patches_times_weights_are_the_linear_layer(leading):
    check(nn.Linear(5, 3).double(), torch.randn(*leading, 5, dtype=torch.float64))


def check(layer, x):
    expected = output_rows(layer, layer(x))
    rows = patches(layer, x)
    made = torch.einsum("rgf,gfo->rgo", rows, weight_matrix(layer))
    if layer.bias is not None:
        made = made + layer.bias.reshape(made.shape[1:])
    torch.testing.assert_close(made, expected)
    assert row_count(layer, x) == rows.shape[0]
    some = torch.arange(rows.shape[0]).flip(0)[::2]
    torch.testing.assert_close(patches(layer, x, some), rows[some], rtol=0, atol=0)
    torch.testing.assert_close(torch.cat(list(patches_by(layer, x, some, 3))), rows[some], rtol=0, atol=0)
    if x.ndim > 1 and len(rows) % len(x) == 0:
        y = torch.randn_like(layer(x))
        by_image = [value.reshape(len(x), -1, *value.shape[1:]) for value in (rows, output_rows(layer, y))]
        products = torch.einsum("npgf,npgo->ngfo", *by_image)
        torch.testing.assert_close(weight_products(layer, x, y, len(x)), products)


def test_other_modules_and_inputs_are_refused():
    assert not is_layer(nn.ReLU())
    with pytest.raises(InputError, match="got a ReLU"):
        patches(nn.ReLU(), torch.zeros(1))
    with pytest.raises(InputError, match="reads 3 channels"):
        patches(nn.Conv2d(3, 4, 1), torch.zeros(1, 2, 5, 5))
    with pytest.raises(InputError, match="reads 3 features"):
        patches(nn.Linear(3, 4), torch.zeros(1, 2))


class Same(nn.Conv2d):
    """Pads in its own `forward`, as timm's Conv2dSame does; its `padding` says 0."""

    def forward(self, x):
        return functional.conv2d(functional.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class Standardised(nn.Conv2d):
    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, weight - weight.mean((1, 2, 3), keepdim=True), bias)


class Scaled(nn.Linear):
    def forward(self, x):
        return functional.linear(2 * x, self.weight, self.bias)


class Named(nn.Conv2d):
    """Adds nothing to how the input is read."""


@pytest.mark.parametrize("layer", [Same(3, 4, 2, stride=2), Standardised(3, 4, 2), Scaled(3, 4)])
def test_layers_with_code_of_their_own_are_refused(layer):
    assert not is_layer(layer)
    with pytest.raises(InputError, match="torch's own, got a"):
        patches(layer, torch.zeros(1, 3, 6, 3))


@pytest.mark.parametrize("layer", [Named(3, 4, 2), parametrizations.weight_norm(nn.Conv2d(3, 4, 2))])
def test_subclasses_that_run_torchs_code_are_layers(layer):
    assert is_layer(layer)
    check(layer, torch.randn(2, 3, 6, 6))


def test_sums_of_rows_give_the_covariance_far_from_zero():
    rows = 1e4 + torch.randn(2, 300, 4, generator=torch.Generator().manual_seed(0))
    sums = RowSums()
    for batch in rows.split(120, dim=1):
        sums.add(batch)
    expected = torch.stack([torch.cov(group.T, correction=0) for group in rows.double()])
    torch.testing.assert_close(sums.covariance(), expected, rtol=1e-4, atol=1e-5)
