"""Reading trained weights from a file into a model, safetensors or a torch state dict; nothing is unpickled."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.common.factories import one_line
from nasprune.errors import InputError

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net")


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Copies the weights in `path` into `model`, in place.

    Keys may carry a `module.` or `_orig_mod.` prefix, or lie in a dictionary under `state_dict`, `model` and the like.
    Batch counters of batch-norm layers, and names tied to a tensor that is there, may be absent.

    Raises:
        InputError: the file cannot be read, or does not fit; the first key that does not is named with both shapes.
    """
    path = Path(path).expanduser()
    fit(model, _stripped(read_tensors(path)), path)


def fit(model: nn.Module, given: Mapping[str, Tensor], path: Path) -> None:
    """Copies tensors read from `path` into `model`, in place; all of them must fit, and none may lack.

    Raises:
        InputError: as `load_weights`.
    """
    wanted = model.state_dict()
    present = {tensor.data_ptr() for name, tensor in wanted.items() if name in given}
    for name, tensor in wanted.items():
        if name in given:
            if given[name].shape != tensor.shape:
                raise InputError(
                    f"weights {str(path)!r}: {name!r} has shape {list(given[name].shape)} in the file, "
                    f"{list(tensor.shape)} in the model; give the weights of this very model"
                )
        elif not name.endswith("num_batches_tracked") and not (tensor.numel() and tensor.data_ptr() in present):
            first = next(iter(given), "nothing")
            raise InputError(
                f"weights {str(path)!r}: no {name!r} of shape {list(tensor.shape)}, which the model has; "
                f"the file starts with {first!r}"
            )
    for name, tensor in given.items():
        if name not in wanted:
            raise InputError(f"weights {str(path)!r}: {name!r} of shape {list(tensor.shape)} is not in the model")
    copy_into(model, given)


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors; one with several names is written once, under the first."""
    from safetensors.torch import save

    seen: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = set()
    written: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        written[name] = tensor.detach().cpu().contiguous().clone()
    return save(written)


def copy_into(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies tensors of the right shapes into the parameters and buffers they name.

    Unlike `load_state_dict` it needs no version record, which safetensors cannot hold and which some models insist on.
    """
    state = model.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors or torch file, on the CPU. Raises InputError where it is neither."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise InputError(f"cannot read weights {str(path)!r}: {error.strerror}") from error
    try:
        if head[8:9] == b"{":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            record = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise InputError(
            f"weights {str(path)!r} hold more than tensors, or are not a torch file, and are not opened; "
            "save them with torch.save(model.state_dict(), FILE) or safetensors"
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"weights {str(path)!r} are damaged: {type(error).__name__}: {one_line(error)}") from error
    return _tensors(record, path)


def _tensors(record: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(record, Mapping) and isinstance(record.get(wrapper), Mapping):
            record = record[wrapper]
    tensors = {k: v for k, v in record.items() if isinstance(v, torch.Tensor)} if isinstance(record, Mapping) else {}
    if not tensors:
        raise InputError(f"weights {str(path)!r}: expected a dictionary of tensors, got {type(record).__name__}")
    return tensors


def _stripped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in tensors if name != "n_averaged"):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name != "n_averaged"}
    return tensors
