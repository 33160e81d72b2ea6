"""What a cut network must compute: the dense program with the dropped channels' consumers set to zero.

The captured program is run operation by operation. Weights lose the slices of dropped channels, branches of dropped
blocks are zero, and norms that mix channels take their statistics over the kept ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg
from torch.overrides import TorchFunctionMode

from nasprune.common.inputs import Inputs
from nasprune.graph.model import Bools, ModelGraph
from nasprune.graph.program import arguments, operator

WEIGHTS = {"conv": "weight", "linear": "weight", "matmul": "other", "mm": "mat2", "addmm": "mat2"}
REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NO_RESULT = ("_assert_tensor_metadata", "_assert_async")


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors have `dtype` inside."""
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
        self._keep = keep
        self._dtype = dtype
        self._device = graph.example_inputs.device
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
                    values[node] = cast_float(self._leaf(node.name, state, given), self._dtype)
                elif node.op == "call_function":
                    values[node] = self._call(node, values)
                    if node.name in self._zeroed:
                        values[node] = torch.zeros_like(values[node])
                for source in node.all_input_nodes:
                    if last_use[source] == index and node.op != "output":
                        values.pop(source, None)
            return [values[node] for node in program.outputs if isinstance(values[node], Tensor)]

    def _leaf(self, name: str, state: Mapping[str, Tensor], given: Mapping[str, Any]) -> Any:
        program = self._graph.program
        if name in program.params:
            value = state[program.params[name]]
            return value.clone() if program.params[name] in program.buffers else value  # the program may write to it
        value = given[name] if name in given else program.constants[name]
        return value.clone() if isinstance(value, Tensor) else value

    def _call(self, node: Node, values: Mapping[Node, Any]) -> Any:
        name = operator(node)
        if name in NO_RESULT:
            return None
        handler = self._norm(name, node)
        if handler is not None:
            return handler(node, {key: map_arg(value, values.__getitem__) for key, value in arguments(node).items()})
        args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
        args = tuple(cast_float(arg, self._dtype) for arg in args)
        kwargs = {key: cast_float(arg, self._dtype) for key, arg in kwargs.items()}
        slot = WEIGHTS.get("conv" if name.startswith("conv") else name)
        if slot is not None:
            args = self._mask_weight(node, slot, args)
        return cast(Callable[..., Any], node.target)(*args, **kwargs)

    def _mask_weight(self, node: Node, slot: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        weight = arguments(node)[slot]
        place = node.args.index(weight)
        mask = self._weight_mask(weight)
        return args if mask is None else (*args[:place], args[place] * mask, *args[place + 1 :])

    def _weight_mask(self, node: Node) -> Tensor | None:
        name = self._graph.program.params.get(node.name)
        if name is None:
            return self._mask(node, range(len(node.meta["val"].shape)))
        mask = None
        shape = tuple(node.meta["val"].shape)
        for axis in self._graph.params.get(name, ()):
            positions = axis.positions(self._keep)
            if positions.all():
                continue
            layout = [1] * len(shape)
            layout[axis.axis] = shape[axis.axis]
            if len(positions) > 1:
                layout[0] = shape[0]
                positions = positions.repeat(shape[0] // len(positions), axis=0)
            own = self._tensor(positions.reshape(layout))
            mask = own if mask is None else mask * own
        return mask

    def _mask(self, node: Node, cuts: Sequence[int] | range) -> Tensor | None:
        """Broadcastable mask of the units of `node` that end on one of the `cuts` axes; `None` if all stay."""
        mask = None
        for factor in self._graph.values.get(node.name, ()):
            kept = self._keep[factor.units]
            if factor.cut in cuts and not kept.all():
                own = self._tensor(kept)
                mask = own if mask is None else mask * own
        return mask

    def _tensor(self, kept: Bools) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(kept)).to(self._device, self._dtype)

    def _norm(self, name: str, node: Node) -> Callable[[Node, dict[str, Any]], Tensor] | None:
        """The masked version of a norm over axes on which units are dropped, or `None` where the plain one serves."""
        args = arguments(node)
        ndim = len(node.meta["val"].shape) if isinstance(node.meta.get("val"), Tensor) else 0
        if name in ("layer_norm", "rms_norm"):
            axes = list(range(ndim - len(args["normalized_shape"]), ndim))
        elif name == "group_norm" and args["num_groups"] == 1:
            axes = list(range(1, ndim))
        elif name == "batch_norm" and args["training"]:
            axes = [axis for axis in range(ndim) if axis != 1]
        else:
            return None
        mask = self._mask(node.all_input_nodes[0], axes)
        if mask is None:
            return None
        vector = name in ("group_norm", "batch_norm")
        return lambda _, values: _masked_norm(values, mask, axes, centred=name != "rms_norm", vector=vector)


def _masked_norm(args: Mapping[str, Any], mask: Tensor, axes: list[int], *, centred: bool, vector: bool) -> Tensor:
    """A normalisation whose statistics count only where `mask` is 1; masked places come out as zero.

    vector: whether weight and bias run along axis 1 (batch and group norm) or along the last axes (layer norm).
    """
    x: Tensor = args["input"]
    full = mask.expand(x.shape)
    count = full.sum(axes, keepdim=True)
    mean = (x * full).sum(axes, keepdim=True) / count if centred else x.new_zeros(())
    variance = ((x - mean).square() * full).sum(axes, keepdim=True) / count
    eps = args.get("eps")
    y = (x - mean) * (variance + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()
    shape = [1, -1] + [1] * (x.ndim - 2)
    for name, combine in (("weight", torch.mul), ("bias", torch.add)):
        value = args.get(name)
        if value is not None:
            y = combine(y, value.reshape(shape) if vector else value)
    return y * full
