"""Example inputs as a plan records them: shapes and types of tensors, and the structure around them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from nasprune.common.fields import Field
from nasprune.common.inputs import Inputs
from nasprune.errors import PlanError

VALUES = (bool, int, float, str, type(None))
DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
)
"""Names of the types that tensors in a plan may have."""
AXES, ELEMENTS = 16, 2**28
"""Of a tensor in a plan, and elements of all of them."""
DEEPEST, LEAVES = 16, 2**12
"""How deep arguments are nested, and how many one list holds."""


@dataclass(frozen=True)
class TensorSpec:
    """Shape (batch axis first) and dtype ("float32") of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, value: Tensor) -> TensorSpec:
        return cls(tuple(value.shape), str(value.dtype).removeprefix("torch."))

    def noise(self) -> Tensor:
        """Normal noise, always the same; zeros where the type has none.

        Raises:
            PlanError: torch has no such type.
        """
        dtype = getattr(torch, self.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise PlanError(
                f"the plan records an input of type {self.dtype!r}, which torch lacks; pass example_inputs="
            )
        if not dtype.is_floating_point:
            return torch.zeros(self.shape, dtype=dtype, device="cpu")
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(0), device="cpu").to(dtype)


@dataclass(frozen=True)
class InputSpec:
    """The arguments of a call with a `TensorSpec` in place of every tensor. Falsy where nothing is recorded."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.args or self.kwargs)

    @classmethod
    def of(cls, inputs: Inputs) -> InputSpec:
        """That of a call; an empty one where it holds what JSON cannot say, such as a named tuple or a dtype."""
        found = cls(*tree_map(_spec, (inputs.args, dict(inputs.kwargs))))
        return found if all(map(_is_plain, [*found.args, *found.kwargs.values()])) else cls()

    @property
    def elements(self) -> int:
        """How many numbers its tensors hold together."""
        return sum(map(_elements, (*self.args, *self.kwargs.values())))

    def noise(self) -> Inputs:
        """A call of this structure: noise for floating-point tensors, zeros for others."""
        return Inputs(tuple(map(_noise, self.args)), {name: _noise(value) for name, value in self.kwargs.items()})

    def to_record(self) -> dict[str, Any]:
        """`inputs`: the positional arguments; `keywords`: the others, left out where there are none."""
        record: dict[str, Any] = {"inputs": [_to_record(value) for value in self.args]}
        if self.kwargs:
            record["keywords"] = {name: _to_record(value) for name, value in self.kwargs.items()}
        return record

    @classmethod
    def of_fields(cls, inputs: Field, keywords: Field | None) -> InputSpec:
        """Reads what `to_record` wrote. Raises PlanError naming the field where something is wrong."""
        named = keywords.members() if keywords is not None else {}
        found = cls(
            tuple(_of_field(value, DEEPEST) for value in inputs.items(LEAVES)),
            {name: _of_field(value, DEEPEST) for name, value in named.items()},
        )
        if found.elements > ELEMENTS:
            raise inputs.wrong(f"tensors of at most {ELEMENTS:,} elements together")
        return found


def _spec(leaf: Any) -> Any:
    return TensorSpec.of(leaf) if isinstance(leaf, Tensor) else leaf


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(isinstance(key, str) for key in value) and all(map(_is_plain, value.values()))
    return isinstance(value, TensorSpec) or type(value) in VALUES


def _noise(value: Any) -> Any:
    if isinstance(value, TensorSpec):
        return value.noise()
    if isinstance(value, tuple | list):
        return type(value)(map(_noise, value))
    return {key: _noise(part) for key, part in value.items()} if isinstance(value, dict) else value


def _to_record(value: Any) -> dict[str, Any]:
    if isinstance(value, TensorSpec):
        return {"shape": list(value.shape), "dtype": value.dtype}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_to_record(part) for part in value]}
    if isinstance(value, dict):
        return {"dict": {key: _to_record(part) for key, part in value.items()}}
    return {"value": value}


def _of_field(found: Field, depth: int) -> Any:
    """The argument that a field describes, of lists and the like at most `depth` deep."""
    members = found.members()
    if depth == 0:
        raise found.wrong(f"arguments nested at most {DEEPEST} deep")
    if "shape" in members:
        return _tensor(found)
    if len(members) != 1:
        raise found.wrong("one of `tuple`, `list`, `dict`, `value`, or `shape` with `dtype`")
    name, value = next(iter(members.items()))
    if name in ("tuple", "list"):
        parts = (_of_field(part, depth - 1) for part in value.items(LEAVES))
        return tuple(parts) if name == "tuple" else list(parts)
    if name == "dict":
        return {key: _of_field(part, depth - 1) for key, part in value.members().items()}
    if name != "value" or type(value.value) not in VALUES:
        raise value.wrong("a number, a word or null as an input of the plan")
    return value.value


def _tensor(found: Field) -> TensorSpec:
    parts = found.parts("shape", "dtype")
    shape = parts["shape"].wholes(0, ELEMENTS, AXES)
    if math.prod(shape) > ELEMENTS:
        raise parts["shape"].wrong(f"at most {ELEMENTS:,} elements")
    if parts["dtype"].text() not in DTYPES:
        raise parts["dtype"].wrong(f"one of {', '.join(DTYPES)}")
    return TensorSpec(shape, parts["dtype"].text())


def _elements(value: Any) -> int:
    if isinstance(value, TensorSpec):
        return math.prod(value.shape)
    parts = value.values() if isinstance(value, dict) else value
    return sum(map(_elements, parts)) if isinstance(value, tuple | list | dict) else 0
