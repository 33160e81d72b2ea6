"""What a network's state is made of."""

from __future__ import annotations

from torch import Tensor, nn


def state_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of its state dict, name -> the very tensor.

    Modules may keep anything else there, see `torch.nn.Module.get_extra_state`. That stays with the module, is copied
    with it, and goes into no file.
    """
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
