"""Running a model that belongs to someone else: nothing that the run did stays behind."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from nasprune.common.closures import REGISTRIES, rebind
from nasprune.common.copies import PLAIN, deep_copy, is_empty, is_plain
from nasprune.common.randomness import own_randomness
from nasprune.errors import InputError

CONTAINERS = (dict, list, set)
HOLDING = (dict, list, tuple)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode; afterwards it and all random states are as they were before.

    Attributes and the lists and dicts among them get back what they held, and buffers and plain tensors their values.
    Parameters are not guarded: code that writes to them while it runs has to run on a `twin`.
    """
    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    attributes = [(vars(module), vars(module).copy()) for module in modules]
    held = [value for _, saved in attributes for value in saved.values() if type(value) not in PLAIN]
    containers = [value for value in held if isinstance(value, CONTAINERS)]
    empty = [container for container in containers if not container]
    contents = [(container, container.copy()) for container in containers if container]
    tensors = [(value, value._version, value.detach().clone()) for value in _tensors_of(modules, held)]
    try:
        with in_eval(model):
            yield
    finally:
        for own, saved in attributes:
            own.clear()
            own.update(saved)
        for container in empty:
            if container:
                container.clear()
        for container, content in contents:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)
        with torch.no_grad():
            for tensor, version, values in tensors:
                if tensor._version != version:
                    tensor.copy_(values)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[nn.Module]:
    """`untouched`, without gradients."""
    with untouched(model), torch.no_grad():
        yield model


@contextmanager
def in_eval(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; modes and random states are as before afterwards, and nothing else is."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, training in modes:
            if training is not False:
                module.training = False
        with own_randomness(model):
            yield
    finally:
        for module, training in modes:
            if module.training is not training:
                module.training = training


def twin(model: nn.Module, instead: Mapping[int, Tensor] | None = None) -> nn.Module:
    """A copy with parameters, buffers and attributes of its own. Kept activations come without their history.

    Buffers made by `expand`, whose elements share memory, so that none can be written into, hold each of their own.

    instead: what the copy holds in the place of some of the model's tensors, by the identity of those.

    Raises:
        InputError: an attribute cannot be copied; it is named.
    """
    history = {
        id(value): value.detach().clone()
        for module in model.modules()
        for name, held in vars(module).items()
        if name not in REGISTRIES and not is_plain(held) and not is_empty(held)
        for value in tree_leaves(held)
        if isinstance(value, Tensor) and value.grad_fn is not None
    }
    spread = {id(value): value.detach().clone() for value in model.buffers() if _is_expanded(value)}
    try:
        memo: dict[int, Any] = {**history, **spread, **(instead or {})}
        copied = deep_copy(model, memo)
        rebind(copied, memo)
        _mark(model, memo)
        return copied
    except Exception as error:  # whatever the user's attributes raise
        culprit = _uncopyable(model, history)
        where = f"its attribute {culprit} cannot be copied" if culprit else "it cannot be copied"
        raise InputError(
            f"nasprune works on a copy of the model, and {where} ({type(error).__name__}: "
            f"{next(iter(str(error).splitlines()), '')}); take it off the model for the time being, or give its class "
            "a `__deepcopy__`"
        ) from error


def _is_expanded(value: Tensor) -> bool:
    """Whether several of its elements are one place in memory."""
    if is_lazy(value) or value.layout != torch.strided:
        return False
    return any(step == 0 and size > 1 for step, size in zip(value.stride(), value.shape, strict=True))


def _mark(model: nn.Module, memo: dict[int, Any]) -> None:
    """Gives copied tensors what code has noted on the originals, such as `weight._no_weight_decay`, which torch drops.

    Tensors on a tensor that was cut are left out, as they were made for the whole one.
    """
    for value in itertools.chain(model.parameters(), model.buffers()):
        copied = memo.get(id(value))
        if not vars(value) or not isinstance(copied, Tensor) or copied is value:
            continue
        for name, noted in vars(value).items():
            if not isinstance(noted, Tensor) or id(noted) in memo or copied.shape == value.shape:
                vars(copied)[name] = copy.deepcopy(noted, memo)


def in_same_memory(model: nn.Module) -> dict[int, Tensor]:
    """For `twin`: parameters without gradients as yet that share the memory of the model's.

    For copies that are run and thrown away; code that writes to its parameters while it runs needs a copy of them.
    """
    return {
        id(value): nn.Parameter(value.detach(), value.requires_grad)
        for value in model.parameters()
        if type(value) is nn.Parameter
    }


def _uncopyable(model: nn.Module, history: dict[int, Tensor]) -> str:
    """The path and the type of the first attribute that no copy can be made of."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in REGISTRIES:
                continue
            try:
                copy.deepcopy(value, dict(history))
            except Exception:
                return f"`{f'{path}.{name}'.lstrip('.')}`, a {type(value).__name__},"
    return ""


def held_tensors(model: nn.Module) -> list[Tensor]:
    """Buffers, and plain tensors in attributes and in the lists, tuples and dicts there: all but the parameters."""
    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    held = [value for module in modules for value in vars(module).values() if type(value) not in PLAIN]
    return _tensors_of(modules, held)


def _tensors_of(modules: Sequence[nn.Module], held: Sequence[Any]) -> list[Tensor]:
    """Buffers, plain tensors, and those in lists, tuples and dicts: all but the parameters."""
    found: dict[int, Tensor] = {}
    for value in held:
        if isinstance(value, Tensor):
            found[id(value)] = value
        elif isinstance(value, HOLDING) and value:
            for each in value.values() if isinstance(value, dict) else value:
                if isinstance(each, Tensor):
                    found[id(each)] = each
    parameters = {id(value) for module in modules for value in module._parameters.values()}
    return [value for key, value in found.items() if key not in parameters and not value.is_inference()]
