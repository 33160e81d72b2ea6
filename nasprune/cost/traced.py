"""Counting what a network runs: fvcore's trace with nasprune's formulas added, or a captured program.

fvcore is the counter of record. A network that its trace cannot follow is captured as `nasprune.trace` does it, and
the same formulas count it.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Node

from nasprune.common.calls import plain_attention
from nasprune.common.inputs import Inputs
from nasprune.common.outputs import tensors_of
from nasprune.common.untouched import undisturbed
from nasprune.cost.calls import Call, Shape, amount
from nasprune.cost.counts import Count, Formula
from nasprune.cost.formulas import ADDED, FORMULAS, NAMESPACES, count
from nasprune.graph.capture import capture
from nasprune.graph.program import shape_of

CLOSED = ("prim::PythonOp", "prim::CallFunction")
"""What a trace does not look into: autograd functions and scripted ones."""

Handle = Callable[[Any, Any], "Counter[str]"]


class _Fvcore(NamedTuple):
    """fvcore's analysis, and its handles for FLOPs and activations by operator."""

    analysis: Any
    flops: Mapping[str, Any]
    activations: Mapping[str, Any]


@cache
def _fvcore() -> _Fvcore:
    """fvcore, imported when it is first needed, without the warning of its other parts about `torch.jit.script`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis
        from fvcore.nn.activation_count import _DEFAULT_SUPPORTED_OPS as ACTIVATIONS
        from fvcore.nn.flop_count import _DEFAULT_SUPPORTED_OPS as FLOPS
    return _Fvcore(FlopCountAnalysis, FLOPS, ACTIVATIONS)


def traced_counts(model: nn.Module, inputs: Inputs) -> Counter[str] | None:
    """Counts of what fvcore traces, by operator: "flops:conv" and "acts:conv"; `None` where it does not see all.

    Raises whatever the trace, or a rule on what it found, raises where it cannot follow the model.
    """
    analysis = _fvcore().analysis(_Flat(model, inputs), tuple(inputs.clone().tensors))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    for name, handle in _handles().items():
        analysis.set_op_handle(name, handle)
    with undisturbed(model), plain_attention(), _quiet():
        found: Counter[str] = analysis.by_operator()
        closed = any(name.startswith(CLOSED) for name in analysis.unsupported_ops())
    return None if closed else found


def captured_counts(model: nn.Module, inputs: Inputs) -> Counter[str]:
    """The same counts of the program that `nasprune.trace` captures.

    Raises:
        TraceError: the model cannot be captured. InputError: it does not run on `inputs`.
    """

    def sizes(node: Node) -> Shape:
        return shape_of(node) or ()

    found: Counter[str] = Counter()
    for node in capture(model, inputs).live:
        counted = count(node, sizes) if node.op == "call_function" else None
        if counted is not None:
            found += _numbers(counted)
    return found


class _Flat(nn.Module):
    """A call as a module that takes and returns tensors in flat order: a trace knows no others.

    The model is kept out of sight of fvcore, which marks where modules begin and end: where one raises an exception
    that the code around it catches, the end would be missing, and the trace would end the process.
    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self._hidden = (model,)
        self._inputs = inputs

    def state_dict(self, *_: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        return self._hidden[0].state_dict(destination=destination, prefix=prefix, keep_vars=keep_vars)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        outputs = self._inputs.map(lambda _: next(given)).call(self._hidden[0])
        return tuple(tensors_of(outputs))


class _TracedCall(Call):
    """A call in fvcore's trace. inputs, outputs: its `torch._C.Value`s."""

    def __init__(self, name: str, inputs: list[Any], outputs: list[Any]) -> None:
        self.operator = name
        names = _argument_names(outputs[0].node().schema())
        self._arguments = dict(zip(names, inputs, strict=False))
        self._outputs = outputs

    def shape(self, *names: str) -> Shape | None:
        found = (self._arguments[name] for name in names if name in self._arguments)
        return next((tuple(value.type().sizes()) for value in found if value.isCompleteTensor()), None)

    def shapes(self, name: str) -> list[Shape]:
        return [tuple(value.type().sizes()) for value in self._arguments[name].node().inputs()]

    def value(self, name: str) -> Any:
        return _constant(self._arguments[name]) if name in self._arguments else None

    @property
    def result(self) -> Shape:
        return tuple(self._outputs[0].type().sizes())


@cache
def _argument_names(schema: str) -> tuple[str, ...]:
    return tuple(argument.name for argument in torch._C.parse_schema(schema).arguments)


def _constant(value: Any) -> Any:
    """A constant of the trace, or a list of them; `None` for what is computed."""
    if value.node().kind() == "prim::ListConstruct":
        return [_constant(item) for item in value.node().inputs()]
    return value.toIValue()


@cache
def _handles() -> dict[str, Handle]:
    """A handle for every operator that is counted, by its name in a trace."""
    fvcore = _fvcore()
    found = {name: _of_fvcore(name, fvcore) for name in fvcore.flops}
    for name in ADDED:
        for space in NAMESPACES:
            for written in (name, f"{name}_"):  # in place, too
                found[f"{space}::{written}"] = _of_formula(name, FORMULAS[name])
    return found


def _of_fvcore(name: str, fvcore: _Fvcore) -> Handle:
    """A handle that counts FLOPs and activations of one operator at once."""
    short = name.split("::")[1]

    def handle(inputs: Any, outputs: Any) -> Counter[str]:
        result: Counter[str] = Counter()
        for kind, table in (("flops", fvcore.flops), ("acts", fvcore.activations)):
            if name in table:
                counted = table[name](inputs, outputs)
                for key, number in counted.items() if isinstance(counted, Counter) else ((short, counted),):
                    result[f"{kind}:{key}"] += int(number)
        return result

    return handle


def _of_formula(name: str, formula: Formula) -> Handle:
    def handle(inputs: Any, outputs: Any) -> Counter[str]:
        return _numbers(formula(_TracedCall(name, inputs, outputs)))

    return handle


def _numbers(counted: Count) -> Counter[str]:
    found: Counter[str] = Counter()
    for kind, products in (("flops", counted.flops), ("acts", counted.activations)):
        found[f"{kind}:{counted.operator}"] += sum(p.coefficient * amount(p.extents) for p in products)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in ("fvcore", "fvcore.nn.jit_analysis")}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
