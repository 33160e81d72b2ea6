"""Recurrent layers and cells: each step multiplies what it reads with every weight matrix once."""

from __future__ import annotations

from collections.abc import Mapping

from nasprune.cost.calls import Call
from nasprune.cost.counts import Count, Formula
from nasprune.cost.sizes import Product


def _layers(call: Call) -> Count:
    """All layers and directions, over padded or packed sequences. Gates are element-wise and count nothing."""
    steps = call.given("input", "data")[:-1]
    matrices = [shape for shape in call.shapes("params") if len(shape) == 2]
    each = len(matrices) // (call.value("num_layers") * (2 if call.value("bidirectional") else 1))
    flops = tuple(Product.of(*steps, *shape) for shape in matrices)
    outputs = tuple(Product.of(*steps, shape[1]) for shape in matrices[1::each])  # what recurs is what is given
    return Count(call.operator, flops, outputs)


def _cell(call: Call) -> Count:
    """Counted as the two linear layers that it is made of, which is what a trace sees."""
    batch = call.given("input")[:-1]
    weights = (call.given("w_ih"), call.given("w_hh"))
    flops = tuple(Product.of(*batch, *weight) for weight in weights)
    return Count("linear", flops, tuple(Product.of(*batch, weight[0]) for weight in weights))


RECURRENT: Mapping[str, Formula] = {
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _layers),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
}
