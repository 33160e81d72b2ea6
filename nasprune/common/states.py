"""What a network's state is made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LOST = (
    "the buffers {} have other values than before, and no file holds them, since they are not persistent: a network "
    "that is saved and loaded has the old values. Register them with persistent=True, or keep the network by torch.save"
)


def state_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of its state dict, name -> the very tensor, unless the network gives copies there.

    Modules may keep anything else there, see `torch.nn.Module.get_extra_state`. That stays with the module, is copied
    with it, and goes into no file.
    """
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def own_tensors(model: nn.Module, *, once: bool = True) -> dict[str, Tensor]:
    """Its parameters and buffers, those that are not persistent, too, name -> the very tensor.

    once: by their first name only where they have several.
    """
    parameters = model.named_parameters(remove_duplicate=once)
    return {**dict(parameters), **dict(model.named_buffers(remove_duplicate=once))}


def lost_in_files(before: nn.Module, after: nn.Module) -> tuple[str, ...]:
    """What should be said where buffers that are not persistent, and so in no file, differ between the two."""
    old, new = own_tensors(before, once=False), own_tensors(after, once=False)
    names = [
        f"{path}.{name}" if path else name
        for path, module in after.named_modules()
        for name in sorted(module._non_persistent_buffers_set)
    ]
    changed = [name for name in names if name in old and name in new and not _equal(old[name], new[name])]
    return (LOST.format(", ".join(map(repr, changed))),) if changed else ()


def _equal(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.detach().cpu(), second.detach().cpu())
