"""`nasprune.semi_structured`: linear layers with 2:4 zeros in the format that GPUs of NVIDIA multiply faster.

The format and its kernels are torch's own (`torch.sparse.to_sparse_semi_structured`): weights keep two of four numbers
and the places of these. Convolutions have no such kernels there and stay dense tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nasprune.common.accepted import accepted
from nasprune.common.untouched import twin
from nasprune.errors import InputError

DEVICES = ("cuda",)


@dataclass(frozen=True)
class SemiStructured:
    """model: a copy for inference, in eval mode. layers: paths of those that changed; left: of the others, why not."""

    layers: tuple[str, ...]
    left: Mapping[str, str]
    model: nn.Module = field(repr=False)


@torch.no_grad()
def semi_structured(model: nn.Module) -> SemiStructured:
    """Puts torch's semi-structured tensors in the place of the weights of linear layers with 2:4 zeros.

    Args:
        model: on a CUDA device, in half precision or bfloat16, best from a search with `pattern='2:4'`; left as it is.
            Layers stay dense that have other zeros, or a size that torch has no kernel for.

    Raises:
        InputError: the model is on another device, or no linear layer can be changed; says why.
    """
    fast = twin(accepted(model)).eval()
    linear = {path: layer for path, layer in fast.named_modules() if type(layer) is nn.Linear}
    if not linear:
        raise InputError("the network has no linear layers of torch's own; only these have kernels for 2:4 zeros")
    placed = sorted({layer.weight.device.type for layer in linear.values()} - set(DEVICES))
    if placed:
        raise InputError(
            f"the network is on {', '.join(placed)}, and torch has kernels for 2:4 zeros on CUDA devices only; move it "
            "there and call this again, or run it as it is: zeros change nothing else"
        )
    changed, left = [], {}
    for path, layer in linear.items():
        reason = _changed(layer)
        if reason:
            left[path] = reason
        else:
            changed.append(path)
    if not changed:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in left.items())
        raise InputError(f"no linear layer can have torch's format of 2:4 zeros ({reasons})")
    return SemiStructured(tuple(changed), left, fast)


def _changed(layer: nn.Linear) -> str:
    """Converts the weight; the reason where it cannot be."""
    weight = layer.weight.detach()
    if not _two_of_four(weight):
        return "its zeros are not 2:4; search with --space \"weights(pattern='2:4')\""
    if weight.dtype == torch.float32:
        return "its numbers are in single precision; write model.half() or model.bfloat16()"
    try:
        packed = torch.sparse.to_sparse_semi_structured(weight.contiguous())
    except (RuntimeError, NotImplementedError) as error:
        return f"torch says: {str(error).splitlines()[0]}"
    layer.weight = nn.Parameter(packed, requires_grad=False)
    return ""


def _two_of_four(weight: Tensor) -> bool:
    return weight.shape[1] % 4 == 0 and bool((weight.reshape(-1, 4).count_nonzero(1) <= 2).all())
