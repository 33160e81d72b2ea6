"""What a model gives: the values in its tuples, lists, dicts and dataclasses, in flat order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from nasprune.errors import InputError

HOLDS_NO_TENSOR = (bool, int, float, complex, str, bytes, type(None), Enum, torch.dtype, torch.device)


def leaves_of(outputs: Any) -> list[Any]:
    """Everything in containers that torch knows, and in dataclasses and kinds of dict, list and tuple of one's own."""
    found: list[Any] = []
    for leaf in tree_leaves(outputs):
        inside = _inside(leaf)
        found += [leaf] if inside is None else [each for part in inside for each in leaves_of(part)]
    return found


def tensors_of(outputs: Any) -> list[Tensor]:
    """The tensors among `leaves_of`."""
    return [leaf for leaf in leaves_of(outputs) if isinstance(leaf, Tensor)]


def check_outputs(outputs: Any) -> None:
    """Raises InputError where tensors may hide in what a model gives, or where there are none."""
    leaves = leaves_of(outputs)
    strange = next((leaf for leaf in leaves if not isinstance(leaf, (Tensor, *HOLDS_NO_TENSOR))), None)
    if strange is not None:
        where = "gives" if strange is outputs else "gives, among others,"
        raise InputError(
            f"the model {where} a {type(strange).__name__}, in which nasprune does not see the tensors; let `forward` "
            "return tensors, alone or in tuples, lists, dicts or dataclasses, make the class known to torch with "
            "torch.utils._pytree.register_pytree_node, or name with scope= a part that returns tensors"
        )
    if not any(isinstance(leaf, Tensor) for leaf in leaves):
        raise InputError(
            f"the model gives no tensor on the example inputs, only {_short(outputs)}, so that there is nothing to "
            "keep or compare; let `forward` return what the network computes"
        )


def check_values(inputs: Sequence[Tensor], outputs: Any) -> None:
    """Raises InputError where the example inputs, or all that the model makes of them, are no numbers to compare."""
    if inputs and not any(value.numel() for value in inputs):
        shapes = ", ".join(str(list(value.shape)) for value in inputs)
        raise InputError(f"`example_inputs` holds no item, got tensors of shape {shapes}; give at least one item")
    if any(bool(value.isnan().any()) for value in inputs if _is_real(value)):
        raise InputError("`example_inputs` holds NaN, of which every network makes NaN; give inputs that are finite")
    given = [value for value in tensors_of(outputs) if _is_real(value) and value.numel()]
    endless = any(bool(value.isinf().any()) for value in inputs if _is_real(value))
    if endless and any(bool(value.isnan().any()) for value in given):
        raise InputError(
            "`example_inputs` holds infinite values, of which the model makes NaN; give inputs that are finite"
        )
    if given and not any(bool(value.isfinite().any()) for value in given):
        raise InputError(
            "the model gives no finite number on its example inputs; give inputs in the range that it was made for, "
            "and check its weights"
        )


def _is_real(value: Tensor) -> bool:
    return value.is_floating_point()


def _inside(leaf: Any) -> list[Any] | None:
    """The parts of a container that torch does not know; `None` for what is none."""
    if is_dataclass(leaf) and not isinstance(leaf, type):
        return [getattr(leaf, field.name, None) for field in fields(leaf)]
    if isinstance(leaf, Mapping):
        return list(leaf.values())
    if isinstance(leaf, SimpleNamespace):
        return list(vars(leaf).values())
    return list(leaf) if isinstance(leaf, list | tuple) else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"
