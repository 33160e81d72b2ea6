"""What a model is called with: positional and keyword arguments that may hold tensors at any depth."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from nasprune.common.untouched import undisturbed
from nasprune.errors import InputError

ExampleInputs = Any
"""A tensor, a tuple of positional arguments, a dict of keyword arguments, or an `Inputs`."""

PLAIN = (Tensor, bool, int, float, complex, str, type(None))


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call, `model(*args, **kwargs)`.

    Arguments may be tensors, numbers, strings, `None`, and lists, tuples and dicts of these, as torch.export takes
    them. Leaves are those of `torch.utils._pytree`, positional arguments first.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for leaf in self.leaves:
            if not isinstance(leaf, PLAIN):
                raise InputError(
                    "`example_inputs` may hold tensors, numbers, strings, None, and lists, tuples and dicts of them, "
                    f"got a {type(leaf).__name__}; give what the model is called with, such as torch.randn(1, 3, 224, "
                    "224), or name with scope= a part that takes plain values"
                )
            if isinstance(leaf, Tensor) and leaf.layout != torch.strided:
                raise InputError("`example_inputs` holds a sparse tensor; give it dense: tensor.to_dense()")
            if isinstance(leaf, Tensor) and leaf.is_meta:
                raise InputError(
                    "`example_inputs` holds a tensor on the meta device, which has no values; give real ones"
                )

    @classmethod
    def of(cls, example_inputs: object, model: nn.Module | None = None) -> Inputs:
        """The call that `example_inputs` stands for.

        Args:
            example_inputs: an `Inputs`, a tuple or list of positional arguments, or a single argument. A dict stands
                for keyword arguments where `model` takes all its keys by name, else for a single argument.
            model: what is called.

        Raises:
            InputError: it holds something else, or a shape in place of a tensor.
        """
        if isinstance(example_inputs, Inputs):
            return example_inputs
        if isinstance(example_inputs, tuple | list):
            _refuse_shape(example_inputs)
            return cls(tuple(example_inputs))
        if isinstance(example_inputs, Mapping) and _takes(model, example_inputs):
            return cls((), dict(example_inputs))
        return cls((example_inputs,))

    @property
    def leaves(self) -> list[Any]:
        """Everything that is no list, tuple or dict, in flat order."""
        return tree_leaves((self.args, dict(self.kwargs)))

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the leaves, in flat order."""
        return [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]

    @property
    def device(self) -> torch.device:
        """That of the first tensor; the CPU where there is none."""
        return next((tensor.device for tensor in self.tensors), torch.device("cpu"))

    def call(self, model: Callable[..., Any]) -> Any:
        """What the model gives; it gets containers of its own, but these very tensors."""
        own = self.map(lambda tensor: tensor)
        return model(*own.args, **own.kwargs)

    def map(self, change: Callable[[Tensor], Any]) -> Inputs:
        """The same call with every tensor changed."""

        def changed(leaf: Any) -> Any:
            return change(leaf) if isinstance(leaf, Tensor) else leaf

        return Inputs(tree_map(changed, self.args), tree_map(changed, dict(self.kwargs)))

    def clone(self) -> Inputs:
        """The same call on copies of the tensors, for models that change their inputs in place."""
        return self.map(lambda tensor: tensor.detach().clone())

    def cast(self, dtype: torch.dtype) -> Inputs:
        """The same call with real floating-point tensors in `dtype`."""
        return self.map(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)

    def to(self, device: torch.device) -> Inputs:
        """The same call on another device."""
        return self.map(lambda tensor: tensor.to(device))

    def ordered(self, keywords: tuple[str, ...]) -> Inputs:
        """The same call with its keyword arguments in that order."""
        return replace(self, kwargs={name: self.kwargs[name] for name in keywords})

    def fitting(self, model: nn.Module) -> Inputs:
        """The same call on the model's device, and in the type of its parameters where it runs only in that."""
        devices = {value.device for value in model.parameters()}
        if len(devices) == 1 and self.tensors and {tensor.device for tensor in self.tensors} != devices:
            return self.to(*devices).fitting(model)
        types = {value.dtype for value in model.parameters() if value.is_floating_point()}
        own = {tensor.dtype for tensor in self.tensors if tensor.is_floating_point()}
        if len(types) != 1 or not own or own == types or self.runs(model):
            return self
        cast = self.cast(*types)
        return cast if cast.runs(model) else self

    def one_item(self, model: nn.Module) -> Inputs:
        """The same call on the first item of the batch, where there is a batch.

        Axis 0 counts as the batch where all tensors that have axes share its size, and `model` runs on one item; nodes
        of a graph, points or channels stay as they are.
        """
        sizes = {len(tensor) for tensor in self.tensors if tensor.ndim}
        if len(sizes) != 1 or sizes == {1}:
            return self
        first = self.map(lambda tensor: tensor[:1] if tensor.ndim else tensor)
        return first if first.runs(model) else self

    def runs(self, model: nn.Module) -> bool:
        """Whether the model runs on these arguments, in eval mode."""
        try:
            with undisturbed(model):
                self.clone().call(model)
        except Exception:
            return False
        return True

    def __str__(self) -> str:
        words = [_words(value) for value in self.args]
        return ", ".join([*words, *(f"{name}={_words(value)}" for name, value in self.kwargs.items())])


def _words(value: Any) -> str:
    """A tensor as its shape, containers with their parts so, other values as they are."""
    if isinstance(value, Tensor):
        return str(list(value.shape))
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {_words(part)}' for key, part in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_words, value))})"
    return repr(value)


def _takes(model: nn.Module | None, named: Mapping[Any, Any]) -> bool:
    """Whether the model's `forward` takes these arguments by name."""
    if model is None or not all(isinstance(name, str) for name in named):
        return False
    try:
        inspect.signature(model.forward).bind(**named)
    except (TypeError, ValueError):
        return False
    return True


def _refuse_shape(values: tuple[Any, ...] | list[Any]) -> None:
    if len(values) > 1 and all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        shape = ", ".join(map(str, values))
        raise InputError(
            f"`example_inputs` must be what the model is called with, got the shape ({shape}); give a tensor, such as "
            f"torch.randn({shape})"
        )
