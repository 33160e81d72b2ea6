"""What is wrong with the arguments of a search, said before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

import torch
from torch import Tensor, nn

from nasprune.common.arguments import number, refused, whole_number
from nasprune.common.inputs import Inputs
from nasprune.data import DataSplits
from nasprune.data.batches import batches
from nasprune.deploy.runtimes import runtime_of
from nasprune.errors import InputError
from nasprune.models.values import wrong_values


def check_limits(trials: int | None, time_limit: float | None) -> None:
    """Raises InputError unless both are above zero, and finite, where they are given."""
    if trials is not None:
        whole_number("trials", trials, "write for example trials=100")
    if time_limit is not None:
        number("time_limit", time_limit, "give seconds, for example time_limit=600")
    if trials is not None and trials < 1:
        raise InputError(f"`trials` (--trials) must be at least 1, got {trials}")
    if time_limit is not None and not 0 < time_limit < inf:  # NaN is neither
        raise InputError(
            f"`time_limit` (--time-limit) must be a number of seconds above 0, got {time_limit:g}; "
            "leave it out for none"
        )


def check_latency(batch: object, threads: object, runtime: object) -> None:
    """Raises InputError unless two are whole numbers above zero, where threads may be `None`, and one is a runtime."""
    if not isinstance(runtime, str):
        raise refused("runtime", "the name of a runtime", runtime, "write for example runtime='onnxruntime'")
    runtime_of(runtime)
    for name, value in (("batch", batch), ("threads", threads)):
        if value is not None or name == "batch":
            whole_number(name, value, f"write for example {name}=1")
            if int(str(value)) < 1:
                raise InputError(f"`{name}` (--{name}) must be at least 1, got {value}")


def options_of(space_options: Mapping[str, object] | None) -> Mapping[str, object]:
    """The options of the space, none by default. Raises InputError where they are no dict."""
    if space_options is None:
        return {}
    if not isinstance(space_options, Mapping):
        raise refused("space_options", "a dict of options", space_options, "write for example {'divisor': 16}")
    return space_options


def several(multiple_of: object) -> tuple[int | str, ...]:
    """One or several numbers or texts as a tuple. Raises InputError for anything else."""
    given = (multiple_of,) if isinstance(multiple_of, int | str) else multiple_of
    if not isinstance(given, Sequence) or not all(isinstance(one, int | str) for one in given):
        raise refused("multiple_of", "a number, or 'GLOB=NUMBER', or several", multiple_of, "write multiple_of=8")
    return tuple(given)


def check_options(seed: object, scope: object) -> None:
    """Raises InputError where one has another type than it must have."""
    whole_number("seed", seed, "write for example seed=0")
    if scope is not None and not isinstance(scope, str):
        raise refused("scope", "the path of a submodule", scope, "write for example scope='backbone'")


def check_callbacks(on_progress: object, should_stop: object, settings: object) -> None:
    """Raises InputError where one cannot be called, or the settings are no names and values."""
    for argument, value in (("on_progress", on_progress), ("should_stop", should_stop)):
        if value is not None and not callable(value):
            raise refused(argument, "a function", value, f"write for example {argument}=print, or leave it out")
    if not isinstance(settings, Mapping):
        raise refused(
            "settings", "a dict of names and values", settings, "write for example settings={'note': 'first'}"
        )


def check_weights(model: nn.Module) -> None:
    """Raises InputError where a parameter or buffer holds what no network computes with: NaN, a negative variance."""
    tensors: list[tuple[str, Tensor, bool]] = [(name, value, True) for name, value in model.named_parameters()]
    tensors += [(name, value, False) for name, value in model.named_buffers()]
    for name, value, parameter in tensors:
        if reason := wrong_values(name, value, parameter=parameter):
            raise InputError(f"the model's {name!r} {reason}")


def check_images(data: DataSplits, inputs: Inputs) -> None:
    """Raises InputError unless the model takes images alone, and those of the data have the example's shape."""
    if len(inputs.tensors) != 1 or len(inputs.leaves) != 1:
        raise InputError(
            f"data gives images alone, the model takes {len(inputs.leaves)} inputs ({inputs}); search without data"
        )
    images, _ = next(batches(data.calibration, 1))
    example = inputs.tensors[0]
    expected, got = tuple(example.shape[1:]), tuple(images.shape[1:])
    if expected != got:
        turned = len(got) == 3 and expected == (got[2], got[0], got[1])
        raise InputError(
            f"the example input has items of shape {expected}, data {data.name!r} gives {got}; "
            + (
                "its channels come last: give images.transpose(0, 3, 1, 2), or for a tensor images.permute(0, 3, 1, 2)"
                if turned
                else "give example inputs of the shape of the data, or other data"
            )
        )
    if example.is_floating_point() != images.is_floating_point():
        raise InputError(
            f"the example input is {_short(example.dtype)}, data {data.name!r} gives {_short(images.dtype)}, and "
            "only you know how the one becomes the other; give the images as in training, for example images.float() / "
            "255, or an example input of the data's type"
        )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
