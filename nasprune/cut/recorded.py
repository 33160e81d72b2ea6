"""Example inputs as a plan records them: shapes and types of tensors, and the structure around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from nasprune.common.inputs import Inputs
from nasprune.errors import PlanError

VALUES = (bool, int, float, str, type(None))


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
            return torch.zeros(self.shape, dtype=dtype)
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(0)).to(dtype)


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
    def from_record(cls, record: Mapping[str, Any]) -> InputSpec:
        """Reads what `to_record` wrote. Raises PlanError, KeyError, TypeError or AttributeError for anything else."""
        return cls(
            tuple(map(_from_record, record["inputs"])),
            {str(name): _from_record(value) for name, value in record.get("keywords", {}).items()},
        )


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


def _from_record(record: Mapping[str, Any]) -> Any:
    if "shape" in record:
        return TensorSpec(_sizes(record["shape"]), str(record["dtype"]))
    if "tuple" in record:
        return tuple(map(_from_record, record["tuple"]))
    if "list" in record:
        return list(map(_from_record, record["list"]))
    if "dict" in record:
        return {str(key): _from_record(part) for key, part in record["dict"].items()}
    value = record["value"]
    if type(value) not in VALUES:
        raise PlanError(f"expected a number, a word or null as an input of the plan, got {value!r}")
    return value


def _sizes(shape: Sequence[Any]) -> tuple[int, ...]:
    if not all(type(size) is int and size >= 0 for size in shape):
        raise PlanError(f"expected sizes from 0 as the shape of an input, got {shape!r}")
    return tuple(shape)
