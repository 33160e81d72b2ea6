"""Models by name: `torchvision:NAME`, `timm:NAME`, `file.py:factory`, `package.module:factory`, with their weights."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from nasprune.common.accepted import accepted
from nasprune.common.factories import call_factory, one_line
from nasprune.errors import InputError, UnknownNameError
from nasprune.models.initial import looks_initialised
from nasprune.models.weights import load_weights

EXAMPLES = "torchvision:NAME, timm:NAME, file.py:factory or package.module:factory"
OWN = "those that the factory gives"
_SIDE = 224
_FRAMES = 16


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode, ready to be traced.

    name: short, fit for a folder's name. spec: as given. shape: of one input without the batch axis.
    shape_given: whether the user chose it. weights: where they are from, `None` where the model is as initialised.
    """

    name: str
    spec: str
    model: nn.Module
    shape: tuple[int, ...]
    shape_given: bool
    weights: str | None

    def example_inputs(self, shape: tuple[int, ...] | None = None) -> tuple[Tensor, ...]:
        """Fixed noise of shape (1, *shape): one tensor for every argument `forward` must have."""
        generator = torch.Generator().manual_seed(0)
        return tuple(
            torch.randn(1, *(shape or self.shape), generator=generator, device="cpu")
            for _ in range(_arguments(self.model))
        )


@dataclass(frozen=True)
class _Built:
    model: nn.Module
    shape: tuple[int, ...] | None
    weights: str | None = None


def load_model(
    spec: str,
    *,
    weights: str | None = None,
    input_size: str | None = None,
    seed: int = 0,
    shape_of_data: Callable[[], tuple[int, ...]] | None = None,
) -> LoadedModel:
    """Builds the model named by `spec` and fills in its weights.

    Args:
        spec: torchvision:NAME, timm:NAME, file.py:factory or package.module:factory.
        weights: a safetensors or torch file, `default` for the library's own, or `None` for the initial ones.
        input_size: "224", "160x192" or in full "3x224x224"; else what the library, or the model's `input_shape`, says.
        seed: of the initial weights; the global generator is left as it was.
        shape_of_data: asked for the shape of one input where nothing else says it.

    Raises:
        UnknownNameError: no such model; the nearest names are listed.
        InputError: it cannot be built, its weights do not fit, or its input size is not known.
    """
    source, _, name = spec.partition(":")
    own = weights == "default"
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        if source == "torchvision":
            built = _torchvision(name, own)
        elif source == "timm":
            built = _timm(name, own)
        else:
            built = _factory(spec, own)
    if weights is not None and not own:
        load_weights(built.model, weights)
        built = _Built(built.model, built.shape, weights)
    shape = parse_input_size(input_size, built.shape) if input_size is not None else built.shape
    if shape is None and shape_of_data is not None:
        shape = shape_of_data()
    if shape is None:
        raise InputError(f"the input size of {spec!r} is not known; give it, for example --input-size 3x224x224")
    short = re.sub(r"[^\w.+-]+", "_", spec.rpartition(":")[2])
    return LoadedModel(short, spec, built.model.eval(), shape, input_size is not None, built.weights)


def chosen_device(name: str) -> torch.device:
    """The device called so; "auto" is a GPU where there is one.

    Raises:
        InputError: there is none here.
    """
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"no device {name!r} here ({one_line(error)}); choose cpu, cuda or auto") from error
    return device


def parse_input_size(text: str, known: tuple[int, ...] | None) -> tuple[int, ...]:
    """Shape of one input: "224" and "160x192" set the last axes of `known` (3 channels if none), "3x8x8" is in full."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise InputError(f"--input-size must look like 224, 160x192 or 3x224x224, got {text!r}")
    sizes = tuple(int(part) for part in text.split("x"))
    if len(sizes) > 2:
        return sizes
    front = known[:-2] if known is not None and len(known) > 2 else (3,)
    return (*front, sizes[0], sizes[-1])


def _arguments(model: nn.Module) -> int:
    needed = [
        parameter
        for parameter in inspect.signature(model.forward).parameters.values()
        if parameter.default is parameter.empty and parameter.kind in (0, 1)
    ]
    return max(1, len(needed))


def _torchvision(name: str, own: bool) -> _Built:
    from torchvision import models

    known = models.list_models()
    if name not in known:
        raise UnknownNameError("torchvision model", name, known)
    builder = models.get_model_builder(name)
    default = models.get_model_weights(name).DEFAULT
    options = {"weights_backbone": None} if "weights_backbone" in inspect.signature(builder).parameters else {}
    try:
        model = builder(weights=default if own else None, **options)
    except (URLError, OSError, RuntimeError) as error:
        raise InputError(_unreachable(f"torchvision:{name}", error) if own else _failed(name, error)) from error
    preset = vars(default.transforms())
    side = preset.get("crop_size") or preset.get("resize_size") or [_SIDE]
    shape: tuple[int, ...] = (3, side[0], side[-1])
    if builder.__module__.startswith("torchvision.models.video"):
        shape = (3, max(_FRAMES, default.meta.get("min_temporal_size", 1)), *shape[1:])
    return _Built(model, shape, f"default ({default})" if own else None)


def _timm(name: str, own: bool) -> _Built:
    try:
        import timm
    except ImportError as error:
        raise InputError(f"timm:{name} needs timm; install it with: pip install 'nasprune[timm]'") from error
    if not timm.is_model(name) and not name.startswith("hf-hub:"):
        raise UnknownNameError("timm model", name, timm.list_models())
    try:
        with _offline_when_unreachable():
            model = timm.create_model(name, pretrained=own)
    except Exception as error:
        raise InputError(_unreachable(f"timm:{name}", error) if own else _failed(name, error)) from error
    cfg: Any = model.pretrained_cfg
    return _Built(model, tuple(cfg["input_size"]), "default" if own else None)


def _factory(spec: str, own: bool) -> _Built:
    if own:
        raise InputError(f"{spec!r} has no default weights; let the factory load them, or give --weights FILE")
    if ":" not in spec:
        from torchvision.models import list_models

        if Path(spec, "plan.json").exists():
            raise InputError(
                f"the model {spec!r} is the folder of a search, which holds a plan and no code: write a factory that "
                f"gives nasprune.load({spec!r}, model=...), and name it as file.py:factory"
            )
        near = difflib.get_close_matches(spec, list_models(), n=1)
        hint = f"did you mean torchvision:{near[0]}? " if near else ""
        raise InputError(f"the model {spec!r} does not say where it is from: {hint}write {EXAMPLES}")
    model = call_factory(spec, what="model")
    try:
        model = accepted(model, spec)
    except InputError as error:
        raise InputError(f"the model factory gives what cannot be used: {error}") from error
    shape = getattr(model, "input_shape", None)
    return _Built(model, tuple(shape) if shape is not None else None, None if looks_initialised(model) else OWN)


def _unreachable(spec: str, error: BaseException) -> str:
    return (
        f"the default weights of {spec} cannot be fetched ({one_line(error)}); connect to the network, "
        "or give --weights FILE, or leave --weights out to search on the initial ones"
    )


def _failed(name: str, error: BaseException) -> str:
    return f"cannot build {name}: {type(error).__name__}: {one_line(error)}"


@contextmanager
def _offline_when_unreachable() -> Iterator[None]:
    """Spares a machine without a network the minute of retries: only the cache is looked into."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    if not any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        try:
            socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
        except OSError:
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
