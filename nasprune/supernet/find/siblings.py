"""Modules that may be candidates of one mixed operation, as a forward pass shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from nasprune.supernet.find.adapters import Container
from nasprune.supernet.find.probe import Call, output_shapes

LISTS = (nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Siblings:
    """Children of `holder` that may be candidates. path: what `MixedOp.path` would be. keys: those of the children.

    received: the tensor that they read; shape: what each gives; running: the keys of those that the forward pass ran;
    zeros: the keys of those that give zeros.
    """

    path: str
    holder: str
    keys: tuple[str, ...]
    received: Tensor
    shape: tuple[int, ...]
    running: frozenset[str]
    listed: bool
    known: Container | None = None
    zeros: frozenset[str] = frozenset()

    def op(self, key: str) -> str:
        """The path of a child."""
        return child_path(self.holder, key)

    @property
    def measured(self) -> list[str]:
        """The paths whose gradients tell how the children are mixed."""
        ops = [self.op(key) for key in self.keys if key in self.running]
        return ops if self.listed else [*ops, self.holder]


def child_path(holder: str, key: str) -> str:
    """The path of a child of the module at `holder`."""
    return f"{holder}.{key}" if holder else key


def tried(net: nn.Module, siblings: Siblings, keys: Sequence[str]) -> list[tuple[int, ...] | str]:
    """What children that did not run give for what the others read. Call it where the net is `untouched`."""
    if not keys:
        return []
    return output_shapes([net.get_submodule(siblings.op(key)) for key in keys], siblings.received)


def unlike(net: nn.Module, siblings: Siblings, calls: Mapping[str, list[Call]]) -> str:
    """Which sibling gives another shape, in words; "" where none does. Call it where the net is `untouched`."""
    shapes: dict[str, object] = {key: calls[siblings.op(key)][0].output for key in siblings.running}
    idle = [key for key in siblings.keys if key not in siblings.running]
    shapes |= zip(idle, tried(net, siblings, idle), strict=True)
    odd = next((key for key in siblings.keys if shapes[key] != siblings.shape), None)
    return "" if odd is None else f"candidates give {siblings.shape}, but {odd!r} gives {shapes[odd]}"


def structure_of(module: nn.Module) -> list[object]:
    """Classes, settings of torch's own layers except dropout, and parameter shapes, throughout."""
    return [
        (
            name,
            type(each).__qualname__,
            each.extra_repr() if type(each).__module__.startswith("torch.nn") and not hasattr(each, "inplace") else "",
            [tuple(value.shape) for value in each.parameters(recurse=False)],
        )
        for name, each in module.named_modules()
    ]


def wrapped(net: nn.Module, holder: str, key: str) -> str:
    """The code by which candidates, of which the net picks one, become a module that can be replaced as a whole."""
    named = isinstance(net.get_submodule(holder), nn.ModuleDict)
    kind, index = ("nn.ModuleDict", repr(key)) if named else ("nn.ModuleList", key)
    return (
        f"hold them in a `class OneOf({kind}): forward = lambda self, x: self[{index}](x)`, call that with the tensor "
        f"instead of its module [{index}], and name it with choices=[{holder!r}]"
    )
