"""What a cut network must compute: the dense program with the dropped channels' consumers set to zero.

The captured program is run operation by operation. Weights lose the slices of dropped channels, branches of dropped
blocks are zero, and what mixes channels (norms, reductions, products) does so over the kept ones, see `masked`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg
from torch.overrides import TorchFunctionMode

from nasprune.common.alone import alone
from nasprune.common.inputs import Inputs
from nasprune.cut.masked import MASKED, Masks
from nasprune.graph.model import Bools, ModelGraph
from nasprune.graph.program import NO_RESULT, arguments, operator

REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors have `dtype` inside; other threads wait meanwhile."""
    with alone():
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


class Precision(TorchFunctionMode):
    """Code that asks for a floating-point precision by name gets `dtype` instead."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (Tensor.float, Tensor.half, Tensor.bfloat16, Tensor.double):
            return args[0].to(self._dtype)
        named = {key: cast_float(value, self._dtype) for key, value in (kwargs or {}).items()}
        return func(*(self._dtype if isinstance(arg, torch.dtype) and arg in REAL else arg for arg in args), **named)


def cast_float(value: Any, dtype: torch.dtype) -> Any:
    """Real floating-point tensors and dtypes of another precision as `dtype`; everything else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    return dtype if isinstance(value, torch.dtype) and value in REAL else value


class MaskedProgram:
    """Runs a graph's program with some units and blocks masked out."""

    def __init__(self, graph: ModelGraph, keep: Bools, dropped: Sequence[str], dtype: torch.dtype) -> None:
        self._graph = graph
        self._dtype = dtype
        self._scaled = {name: scale.factor(keep) for name, scale in graph.scales.items()}
        self._masks = Masks(graph, keep, dtype, graph.example_inputs.device)
        gone = set(dropped)
        self._zeroed = {branch for block in graph.blocks if block.name in gone for branch in block.branches}

    def run(self, state: Mapping[str, Tensor], inputs: Inputs) -> list[Tensor]:
        """The program's tensor outputs in flat order. state: parameters and buffers by name."""
        program = self._graph.program
        last_use = {source: i for i, node in enumerate(program.nodes) for source in node.all_input_nodes}
        values: dict[Node, Any] = {}
        given = dict(zip(program.inputs, inputs.leaves, strict=True))
        with torch.no_grad(), default_dtype(self._dtype):
            for index, node in enumerate(program.nodes):
                if node.op == "placeholder":
                    values[node] = self._leaf(node.name, state, given)
                elif node.op == "call_function":
                    values[node] = self._call(node, values)
                    if node.name in self._zeroed:
                        values[node] = torch.zeros_like(values[node])
                for source in node.all_input_nodes:
                    if last_use[source] == index and node.op != "output":
                        values.pop(source, None)
            return [values[node] for node in program.outputs if isinstance(values[node], Tensor)]

    def _leaf(self, name: str, state: Mapping[str, Tensor], given: Mapping[str, Any]) -> Any:
        """Parameters as they are, each cast where it is used and no longer kept; copies of what may be written to."""
        program = self._graph.program
        path = program.params.get(name)
        if path is not None and path not in program.buffers:
            return state[path]
        value = state[path] if path is not None else given[name] if name in given else program.constants[name]
        return cast_float(value.clone() if isinstance(value, Tensor) else value, self._dtype)

    def _call(self, node: Node, values: Mapping[Node, Any]) -> Any:
        name = operator(node)
        if name in NO_RESULT:
            return None
        rule = MASKED.get("conv" if name.startswith("conv") else name)
        if rule is not None:
            args = {
                key: _cast(map_arg(value, values.__getitem__), self._dtype) for key, value in arguments(node).items()
            }
            result = rule(self._masks, node, args)
            if result is not None:
                return result
        if node.name in self._scaled:
            return _rescaled(node, values, self._scaled[node.name], self._dtype)
        args_, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
        target = cast(Callable[..., Any], node.target)
        return target(
            *(_cast(arg, self._dtype) for arg in args_),
            **{key: _cast(arg, self._dtype) for key, arg in kwargs.items()},
        )


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """`cast_float`, in lists as well: recurrent layers take their weights so."""
    return [cast_float(item, dtype) for item in value] if isinstance(value, list) else cast_float(value, dtype)


def _rescaled(node: Node, values: Mapping[Node, Any], factor: float, dtype: torch.dtype) -> Any:
    """An operation with a number that the code computes from a size, as it is for the size that stays."""
    args = tuple(arg * factor if isinstance(arg, int | float) else arg for arg in node.args)
    given = map_arg(args, values.__getitem__)
    return cast(Callable[..., Any], node.target)(*(_cast(arg, dtype) for arg in given))
