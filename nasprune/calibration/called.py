"""Convolutions and linear layers that code calls as functions, as modules that stand in for the calls.

`functional.conv2d(x, self.weight)` runs no module that could be hooked. A stand-in is one of torch's own layers around
the same parameters; while `routed`, calls with its weight run through it, so that hooks on it see what is read and
made, and may change both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from torch import nn
from torch.fx import Node
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.overrides import TorchFunctionMode

from nasprune.calibration.layers import Layer, is_layer
from nasprune.graph.program import LAYERS, Program, arguments, operator

KINDS: Mapping[str, Callable[..., Layer]] = {
    "linear": nn.Linear,
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
    "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d": nn.ConvTranspose2d,
    "conv_transpose3d": nn.ConvTranspose3d,
}
FUNCTIONS: Mapping[Callable[..., Any], str] = {getattr(functional, name): name for name in KINDS}
PLAIN = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
SETTINGS = ("stride", "padding", "output_padding", "dilation")
_STANDING: WeakSet[nn.Module] = WeakSet()


def stand_in(part: nn.Module, program: Program, param: str) -> Layer | None:
    """A layer around a weight that code multiplies with by a function; `None` for a weight of another kind.

    So are one that a layer of torch's own runs with, one that anything else reads as well, and one that torch's own
    modules, such as attention, multiply with.

    Args:
        part: the traced model or scope, or a network that was cut from it.
        program: that of `part`, or of the network it was cut from.
    """
    nodes = program.multiplying.get(param, ())
    if not nodes or not all(_by_function(node, part, program) for node in nodes):
        return None
    held = dict(part.named_parameters(remove_duplicate=False))
    if param not in held:
        return None
    given = arguments(nodes[0])
    bias = given.get("bias")
    name = program.params.get(bias.name) if isinstance(bias, Node) else None
    if bias is not None and name not in held:
        return None
    layer = _around(held[param], KINDS[operator(nodes[0])])
    layer.register_parameter("bias", held[name] if name is not None else None)
    _set(layer, given)
    _STANDING.add(layer)
    return layer


@contextmanager
def routed(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Calls with the weights of those `layers` that stand in for calls run through them meanwhile."""
    standing = [layer for layer in layers if layer in _STANDING]
    if not standing:
        yield
        return
    with _Routing(standing):
        yield


class _Routing(TorchFunctionMode):
    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self._by_weight = {id(layer.weight): layer for layer in layers}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in FUNCTIONS:
            names = TRANSPOSED if "transpose" in FUNCTIONS[func] else PLAIN
            given = {**dict(zip(names, args, strict=False)), **(kwargs or {})}
            layer = self._by_weight.get(id(given["weight"]))
            if layer is not None:
                _set(layer, given)
                return layer(given["input"])
        return func(*args, **(kwargs or {}))


def _by_function(node: Node, part: nn.Module, program: Program) -> bool:
    """Whether code that is not torch's runs the operation, and nothing but such operations reads the weight."""
    owner = part.get_submodule(program.owner(node).partition("@")[0])
    if is_layer(owner) or type(owner).__module__.startswith("torch."):
        return False
    weight = arguments(node)["weight"]
    return all(operator(user) in LAYERS and arguments(user)["weight"] is weight for user in weight.users)


def _around(weight: nn.Parameter, kind: Callable[..., Layer]) -> Layer:
    spatial = weight.ndim - 2
    layer = kind(1, 1, *([1] if spatial else []), bias=False, device="meta")
    layer.weight = weight
    return layer


def _set(layer: nn.Module, given: Mapping[str, Any]) -> None:
    """Takes over how a call runs: sizes are those of the weight, and the rest is an argument or torch's default."""
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = weight.shape
        return
    assert isinstance(layer, _ConvNd)
    layer.kernel_size, layer.groups = tuple(weight.shape[2:]), int(given.get("groups", 1))
    first, second = weight.shape[0], weight.shape[1] * layer.groups
    transposed = isinstance(layer, _ConvTransposeNd)
    layer.in_channels, layer.out_channels = (first, second) if transposed else (second, first)
    for name in SETTINGS:
        value = given.get(name, 0 if "padding" in name else 1)
        setattr(layer, name, value if isinstance(value, str) else _spread(value, len(layer.kernel_size)))


def _spread(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values if len(values) == axes else values * axes
