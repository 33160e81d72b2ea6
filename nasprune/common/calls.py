"""Around a call of a model: hooks and gradients for its time, and the tensor that counts in what it takes or gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import transformer
from torch.utils._pytree import tree_leaves

from nasprune.common.outputs import tensors_of


@contextmanager
def removed_after(handles: Sequence[Any]) -> Iterator[None]:
    """Removes the hooks when the block ends, however it ends."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def without_gradients(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Leaves that need gradients need none while the block runs."""
    try:
        for tensor in tensors:
            tensor.requires_grad_(False)
        yield
    finally:
        for tensor in tensors:
            tensor.requires_grad_(True)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention layers run step by step, not in one fused kernel that shows nothing of what is inside.

    Masks count as any mask: torch's Transformer else compares them with a causal one, and what it runs depends on that.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    compares = transformer._detect_is_causal_mask
    torch.backends.mha.set_fastpath_enabled(False)
    transformer._detect_is_causal_mask = _said_to_be_causal
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        transformer._detect_is_causal_mask = compares


def _said_to_be_causal(mask: Tensor | None, is_causal: bool | None = None, size: int | None = None) -> bool:
    return is_causal is True


def first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The first tensor that a module is called with, by position or by name."""
    return next(leaf for leaf in tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor))


def main_output(outputs: Any) -> Tensor | None:
    """The first tensor (n, classes, ...) of what a model gives, in tuples, lists and dicts too; `None` without one."""
    return next((value for value in tensors_of(outputs) if value.ndim >= 2), None)


def spoken_output(outputs: Any) -> Tensor | None:
    """As `main_output`, and the only tensor that a model gives, of shape (n,), as (n, 1): a number for each image."""
    found = main_output(outputs)
    if found is not None:
        return found
    given = tensors_of(outputs)
    return given[0][:, None] if len(given) == 1 and given[0].ndim == 1 and given[0].is_floating_point() else None


def in_type_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Inputs in the type of the model's floating-point parameters; integers stay."""
    if not inputs.is_floating_point():
        return inputs
    return inputs.to(next((p.dtype for p in model.parameters() if p.is_floating_point()), inputs.dtype))


def at_least_single(value: Tensor) -> Tensor:
    """In float32, or in the wider type that the tensor has."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
