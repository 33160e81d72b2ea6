"""A network that runs many batches side by side, one stretch of its program after the other.

Between two stretches a shelf holds the tensors that are still to be read, so that a weight may change before any batch
passes it, while each batch is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from nasprune.common.inputs import Inputs
from nasprune.common.shelf import Shelf
from nasprune.graph.program import Program


@dataclass(frozen=True)
class _Paused:
    """The values of one batch between two stretches: tensors lie on the shelf, and their leaves are `None` here."""

    nodes: tuple[Node, ...]
    leaves: tuple[Any, ...]
    tensors: tuple[int, ...]
    spec: TreeSpec


class Stream:
    """A network and its batches, all of which have run equally far.

    Args:
        model: what `program` was captured from; its parameters are read when they are used.
        program: captured on inputs of the same shapes as `calls` have.
        calls: the inputs of each batch.
        shelf: where tensors wait.
        nodes: the live ones of the program in the order in which they run; by default in its own.
    """

    def __init__(
        self,
        model: nn.Module,
        program: Program,
        calls: Iterable[Inputs],
        shelf: Shelf,
        nodes: Sequence[Node] | None = None,
    ) -> None:
        self._program, self._shelf = program, shelf
        self._held: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        self._held.update(model.named_buffers(remove_duplicate=False))
        live = program.live if nodes is None else nodes
        self._nodes = [node for node in live if node.op not in ("placeholder", "output")]
        self._last: dict[Node, int] = {}
        for number, node in enumerate(self._nodes):
            for source in node.all_input_nodes:
                self._last[source] = number
        for node in program.outputs:
            self._last[node] = len(self._nodes)
        self.place = {node: number for number, node in enumerate(self._nodes)}
        self._reached = 0
        self._batches = [self._pause(number, self._started(call)) for number, call in enumerate(calls)]

    @torch.no_grad()
    def upto(self, node: Node, wanted: Sequence[Node]) -> Iterator[list[Any]]:
        """Runs every batch until `node` is next; of each the values of `wanted`, which are still to be read then.

        They may be parameters and buffers as well.
        """
        stop = self.place[node]
        for number in range(len(self._batches)):
            values = self._resume(number)
            self._run(values, self._reached, stop)
            yield [self._read(one, values) for one in wanted]
            self._batches[number] = self._pause(number, values)
        self._reached = stop

    @torch.no_grad()
    def outputs(self, call: Inputs) -> list[Any]:
        """What the program gives for one call."""
        values = self._started(call)
        self._run(values, 0, len(self._nodes))
        return [values[node] for node in self._program.outputs]

    def _run(self, values: dict[Node, Any], start: int, stop: int) -> None:
        for number, node in enumerate(self._nodes[start:stop], start):
            values[node] = self._value(node, values)
            for source in {node, *node.all_input_nodes}:
                if self._last.get(source, -1) <= number:
                    values.pop(source, None)

    def _value(self, node: Node, values: dict[Node, Any]) -> Any:
        if node.op == "get_attr":
            return _attribute(self._program.module, str(node.target))
        args, kwargs = map_arg((node.args, node.kwargs), lambda source: self._read(source, values))
        return cast(Callable[..., Any], node.target)(*args, **kwargs)

    def _read(self, node: Node, values: dict[Node, Any]) -> Any:
        if node.name in self._program.params:
            return self._held[self._program.params[node.name]]
        return self._program.constants[node.name] if node.name in self._program.constants else values[node]

    def _started(self, call: Inputs) -> dict[Node, Any]:
        leaves = call.clone().ordered(self._program.keywords).leaves
        given = dict(zip(self._program.inputs, leaves, strict=True))
        return {node: given[node.name] for node in self._last if node.name in given}

    def _pause(self, number: int, values: dict[Node, Any]) -> _Paused:
        leaves, spec = tree_flatten(list(values.values()))
        tensors = tuple(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor))
        self._shelf.put((self, number), [leaves[i] for i in tensors])
        others = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        return _Paused(tuple(values), others, tensors, spec)

    def _resume(self, number: int) -> dict[Node, Any]:
        paused = self._batches[number]
        leaves = list(paused.leaves)
        for place, tensor in zip(paused.tensors, self._shelf.take((self, number)), strict=True):
            leaves[place] = tensor
        return dict(zip(paused.nodes, tree_unflatten(leaves, paused.spec), strict=True))


def _attribute(module: nn.Module, path: str) -> Any:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name)
    return found
