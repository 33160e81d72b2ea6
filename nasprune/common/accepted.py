"""Models that nasprune takes: a network in one process, in plain Python, with values. Wrappers are taken off."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from nasprune.common.arguments import refused
from nasprune.errors import InputError

QUANTISED = ("torch.ao.nn.qat", "torch.ao.nn.intrinsic.qat", "torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
SHARDED = ("FullyShardedDataParallel", "FSDPModule")


def accepted(model: object, argument: str = "model") -> nn.Module:
    """The network itself, out of DistributedDataParallel, DataParallel and torch.compile.

    Args:
        model: what the user gave. argument: where, for messages.

    Raises:
        InputError: it is no network, or one that must be turned into a plain one first; says by which call.
    """
    if not isinstance(model, nn.Module):
        raise _no_network(model, argument)
    while (inner := _inside(model)) is not None:
        model = inner
    for path, module in model.named_modules():
        reason = next((reason for is_so, reason in _REASONS if is_so(module)), None)
        if reason is not None:
            where = f"`{argument}`" + (f" holds {path!r}, which" if path else "")
            raise InputError(f"{where} is {reason}")
    return model


def _inside(model: nn.Module) -> nn.Module | None:
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner: nn.Module = model.module
        return inner
    found = getattr(model, "_orig_mod", None) if type(model).__name__ == "OptimizedModule" else None
    return found if isinstance(found, nn.Module) else None


def _no_network(model: object, argument: str) -> InputError:
    if isinstance(model, str):
        return refused(
            argument,
            "a torch.nn.Module",
            model,
            "give the network itself; by name it is nasprune.models.load_model('torchvision:resnet18').model",
        )
    if isinstance(model, Mapping):
        return refused(
            argument, "a torch.nn.Module", model, "a state dict has no code: build the network and load it into that"
        )
    if inspect.isclass(model):
        return refused(argument, "a torch.nn.Module", model, f"give an instance: {model.__name__}(...)")
    if isinstance(model, torch.export.ExportedProgram):
        return refused(argument, "a torch.nn.Module", model, "give the network that it was exported from")
    if hasattr(model, "model") and hasattr(model, "plan"):
        return refused(argument, "a torch.nn.Module", model, "give its network: result.model")
    return refused(argument, "a torch.nn.Module", model, "wrap what it computes in a module with a `forward`")


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _is_script(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _is_lazy(module: nn.Module) -> bool:
    return any(isinstance(value, UninitializedParameter | UninitializedBuffer) for value in _tensors(module))


def _is_meta(module: nn.Module) -> bool:
    return any(value.is_meta for value in _tensors(module))


def _is_sparse(module: nn.Module) -> bool:
    return any(value.layout != torch.strided for value in _tensors(module))


def _is_sharded(module: nn.Module) -> bool:
    classes = {each.__name__ for each in type(module).__mro__}
    return bool(classes & set(SHARDED)) or any(hasattr(value, "device_mesh") for value in _tensors(module))


def _is_quantised(module: nn.Module) -> bool:
    from torch.ao.nn.quantized import FloatFunctional, FXFloatFunctional
    from torch.ao.quantization import FakeQuantizeBase, ObserverBase

    if isinstance(module, FloatFunctional | FXFloatFunctional):
        return False  # operators of plain networks, written so that they can be prepared later
    named = any(each.__module__.startswith(QUANTISED) for each in type(module).__mro__)
    return named or isinstance(module, FakeQuantizeBase | ObserverBase)


def _is_wrapped(module: nn.Module) -> bool:
    return _inside(module) is not None


_REASONS: tuple[tuple[Callable[[nn.Module], bool], str], ...] = (
    (
        _is_script,
        "a TorchScript module, whose code cannot be changed; give the Python network that it was made from, and call "
        "torch.jit.script or torch.jit.trace on the result",
    ),
    (
        _is_lazy,
        "a lazy module that has no weights yet; run the network once first: model(example_inputs)",
    ),
    (
        _is_sharded,
        "sharded over several processes; gather it first: on one process build the plain network and load "
        "torch.distributed.checkpoint.state_dict.get_model_state_dict(model, "
        "options=StateDictOptions(full_state_dict=True)) into it",
    ),
    (
        _is_sparse,
        "made of sparse tensors, whose channels cannot be cut; store them dense: tensor.to_dense()",
    ),
    (
        _is_meta,
        "on the meta device and has no values; make room for them first, model.to_empty(device='cpu'), and load the "
        "weights",
    ),
    (
        _is_quantised,
        "quantised, or prepared for it; search the network before torch.ao.quantization prepares it, then prepare the "
        "result",
    ),
    (
        _is_wrapped,
        "a wrapper of torch.compile or of parallel training; put the network that it wraps, `._orig_mod` or "
        "`.module`, in its place first",
    ),
)
