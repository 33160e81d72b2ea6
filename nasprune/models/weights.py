"""Reading trained weights from a file into a model, safetensors or a torch state dict; nothing is unpickled."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.common.factories import one_line
from nasprune.common.fields import shown
from nasprune.common.files import opened
from nasprune.common.states import own_tensors, state_tensors
from nasprune.errors import InputError
from nasprune.models.values import unfit

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net")


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Copies the weights in `path` into `model`, in place.

    Keys may carry a `module.` or `_orig_mod.` prefix, or lie in a dictionary under `state_dict`, `model` and the like.
    Batch counters of batch-norm layers, and names tied to a tensor that is there, may be absent.

    Raises:
        InputError: the file cannot be read, or does not fit; the first key that does not is named with both shapes. Or
            values cannot be meant: of another kind of numbers, sparse, quantised, NaN, a negative variance.
    """
    path = Path(path).expanduser()
    fit(model, _stripped(read_tensors(path)), path)


def fit(model: nn.Module, given: Mapping[str, Tensor], path: Path) -> None:
    """Copies tensors read from `path` into `model`, in place; all of them must fit, and none may lack.

    Raises:
        InputError: as `load_weights`.
    """
    wanted = state_tensors(model)
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
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, tensor in given.items():
        if reason := unfit(name, tensor, wanted[name], parameter=name in parameters):
            raise InputError(f"weights {str(path)!r}: {name!r} {reason}")
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
    """Copies tensors of the right shapes into the parameters and buffers they name, persistent or not.

    Unlike `load_state_dict` it needs no version record, which safetensors cannot hold and which some models insist on.
    """
    state = {**state_tensors(model), **own_tensors(model, once=False)}
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors or torch file, dense and on the CPU. Raises InputError where it is neither."""
    from safetensors import SafetensorError
    from safetensors.torch import load, load_file

    with opened(path, "weights", "give a safetensors or torch file") as file:
        head = file.read(9)
    try:
        if head[8:9] == b"{":
            text = str(path).isascii() or str(path).isprintable()  # other names safetensors may not open by itself
            return _tensors(load_file(path) if text else load(path.read_bytes()), path)
        _check_archive(path)
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            record = torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except UnpicklingError as error:
        raise InputError(
            f"weights {str(path)!r} hold more than tensors, or are not a torch file, and are not opened; "
            "save them with torch.save(model.state_dict(), FILE) or safetensors"
        ) from error
    except SafetensorError as error:
        raise _damaged(path, error) from error
    except Exception as error:  # torch raises whatever its readers of damaged files come across
        raise _damaged(path, error) from error
    return _tensors(record, path)


def _damaged(path: Path, error: Exception) -> InputError:
    reason = one_line(error)
    reason = reason if reason.isprintable() else shown(reason)
    return InputError(
        f"weights {str(path)!r} are damaged: {type(error).__name__}: {reason[:200]}; take another copy of the file"
    )


def _check_archive(path: Path) -> None:
    """Raises InputError where a torch file would unpack to more than it is: `torch.save` compresses nothing."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > path.stat().st_size:
        raise InputError(
            f"weights {str(path)!r} would unpack to {size:,} bytes, more than the file has, which torch.save never "
            "writes; they are not opened"
        )


def _tensors(record: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(record, Mapping) and isinstance(record.get(wrapper), Mapping):
            record = record[wrapper]
    tensors = {k: v for k, v in record.items() if isinstance(v, torch.Tensor)} if isinstance(record, Mapping) else {}
    if not tensors:
        raise InputError(f"weights {str(path)!r}: expected a dictionary of tensors, got {type(record).__name__}")
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise InputError(f"weights {str(path)!r}: expected names of tensors, got {shown(name)}; save a state_dict")
        if kind := _unusual(tensor):
            raise InputError(
                f"weights {str(path)!r}: {shown(name)} is {kind}, an ordinary dense tensor is expected; convert it, "
                "then save again"
            )
    return tensors


def _unusual(tensor: Tensor) -> str | None:
    """What a tensor is that is not plain numbers in memory; `None` for one that is."""
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_nested or tensor.layout != torch.strided:
        return "nested" if tensor.is_nested else "sparse"
    if tensor.device.type != "cpu":
        return "without values (on the meta device)" if tensor.is_meta else f"on the device {tensor.device}"
    return None


def _stripped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in tensors if name != "n_averaged"):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name != "n_averaged"}
    return tensors
