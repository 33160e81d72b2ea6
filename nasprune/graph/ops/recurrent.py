"""Recurrent layers: an LSTM, GRU or plain RNN stacks the rows of its gates along the first axis of its weights.

A hidden unit is a row of every gate and a column of the weights that read the hidden state. All layers and directions
of a module share one hidden size, so each keeps the same number of units, of its own choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn
from torch.fx import Node

from nasprune.graph.labels import Factor, Ints, Labels, along, at
from nasprune.graph.ops.elementwise import Maker
from nasprune.graph.program import operator
from nasprune.graph.rules import OpCall, OpRule

COPIES = ("to", "_to_copy", "clone", "contiguous", "detach", "expand", "zeros_like", "ones_like")
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


class Recurrent(OpRule):
    """lstm, gru, rnn_tanh and rnn_relu on padded batches: (output, h_n) and, for an LSTM, c_n."""

    targets = tuple(GATES)

    def apply(self, call: OpCall) -> list[Labels]:
        states = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
        weights = list(call.get("params") or ())
        each = 4 if call.get("has_biases") else 2
        source = call.get("input")
        if (
            source is None
            or len(weights) % each
            or len(weights) != each * call["num_layers"] * (2 if call["bidirectional"] else 1)
        ):
            call.give_up(f"{call.where}: packed sequences and projected states keep their size")
            return [()] * (len(states) + 1)
        ndim = len(call.shape_of(source))
        inputs = call.channel_ids(
            call.labels("input"), ndim - 1, call.shape_of(source)[-1], f"{call.where} reads features of fixed number"
        )
        call.only(call.labels("input"), ndim - 1, ndim, inputs)
        directions = 2 if call["bidirectional"] else 1
        cells = [weights[i : i + each] for i in range(0, len(weights), each)]
        hidden: list[Ints] = []
        for first in range(0, len(cells), directions):
            layer = [_cell(call, cell, inputs, GATES[call.name]) for cell in cells[first : first + directions]]
            hidden += layer
            inputs = np.concatenate(layer)
        if len(hidden) > 1:
            call.channels.partition(hidden)
        self._start(call, states, hidden)
        if not call.owned_by(nn.RNNBase):
            call.doubt(np.concatenate(hidden))
        if hidden[0].size == 1:
            return [()] * (len(states) + 1)
        last = Factor(np.stack(hidden).reshape(len(hidden), *[1] * (ndim - 2), -1), ndim - 1)
        return [(along(inputs, ndim - 1, ndim),), *[(last,) for _ in states]]

    @staticmethod
    def _start(call: OpCall, states: Sequence[Any], hidden: Sequence[Ints]) -> None:
        """Ties initial states that come with channels, shape (layers * directions, batch, hidden)."""
        for state in states:
            shape = call.shape_of(state)
            factor = at(call.labels_of(state), len(shape) - 1)
            for other in call.labels_of(state):
                if other is not factor:
                    call.channels.freeze(other.ids, f"{call.where} works across these channels")
            if factor is not None:
                rows = np.stack(hidden).reshape(len(hidden), *[1] * (len(shape) - 2), -1)
                call.channels.tie(factor.ids, rows)
            elif (maker := _made_by(state)) is not None:
                call.channels.doubt(np.concatenate(hidden), maker.name)  # of a size that the code may hold
            elif call.variable(state):
                call.channels.freeze(np.concatenate(hidden), f"{call.where} starts from a state of fixed size")


class RecurrentCell(OpRule):
    """One step of a recurrent layer."""

    targets = ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")

    def apply(self, call: OpCall) -> Labels | list[Labels]:
        states = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
        shape = call.shape_of(call["input"])
        inputs = call.channel_ids(
            call.labels("input"), len(shape) - 1, shape[-1], f"{call.where} reads features of fixed number"
        )
        call.only(call.labels("input"), len(shape) - 1, len(shape), inputs)
        cell = [call[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh") if call.get(name) is not None]
        hidden = _cell(call, cell, inputs, GATES[call.name.removesuffix("_cell")])
        Recurrent._start(call, states, [hidden])
        if not call.owned_by(nn.RNNCellBase):
            call.doubt(hidden)
        result = (along(hidden, len(shape) - 1, len(shape)),)
        return [result, result] if call.name == "lstm_cell" else result


def _made_by(state: Any) -> Node | None:
    """The operation that made a state of zeros or the like of a given size; `None` for others."""
    while isinstance(state, Node) and operator(state) in COPIES:
        state = state.all_input_nodes[0]
    return state if isinstance(state, Node) and operator(state) in Maker.targets else None


def _cell(call: OpCall, weights: Sequence[Any], inputs: Ints, gates: int) -> Ints:
    """Ties weights (gates * hidden, features), (gates * hidden, hidden) and biases; the hidden units' ids."""
    reads, recurs, *biases = weights
    rows = call.channel_ids(
        call.labels_of(reads), 0, call.shape_of(reads)[0], f"{call.where} has a fixed width here"
    ).reshape(gates, -1)
    call.channels.tie(rows[:1], rows)
    hidden: Ints = rows[0]
    fixed = f"{call.where} has a fixed width here"
    call.channels.tie(call.channel_ids(call.labels_of(reads), 1, inputs.size, fixed), inputs)
    call.channels.tie(call.channel_ids(call.labels_of(recurs), 0, rows.size, fixed), rows.reshape(-1))
    call.channels.tie(call.channel_ids(call.labels_of(recurs), 1, hidden.size, fixed), hidden)
    for bias in biases:
        call.channels.tie(call.channel_ids(call.labels_of(bias), 0, rows.size, fixed), rows.reshape(-1))
    for weight in (reads, recurs):
        call.role(weight, 0, "out")
        call.role(weight, 1, "in")
    return hidden


RULES = (Recurrent(), RecurrentCell())
